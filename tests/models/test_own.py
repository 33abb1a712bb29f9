"""Networks of one's own: read, cut, and part of a run's fingerprint; a package's and Hugging Face's likewise."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from bench import models
from bench.errors import UserError
from bench.models import hugging_face, own, student
from bench.models.graph import Graphed
from bench.models.teaching import ExpectedInput
from bench.models.whole import Whole
from tests.test_cli import call
from tracking.record import scan

ROOT = Path(__file__).parents[2]
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x):
        return self.fc(self.b(self.a(x).relu()).relu().mean((2, 3)))
"""
WATCHED = NET.replace("def __init__", 'stages = ["a", "b"]\n    def __init__').replace(
    "return", "if x.sum() > 1e9: x = -x\n        return"
)


@pytest.fixture(autouse=True)
def nothing_plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(models.NETWORKS, "")


def write(folder: Path, source: str, name: str = "my_net.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source)
    return folder / name


def guide() -> str:
    """CONTRIBUTING's own lines."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    lines = text.partition("<!-- network:begin -->")[2].partition("<!-- network:end -->")[0]
    return lines.replace("```python\n", "").replace("```", "").lstrip()


def test_the_lines_of_the_guide_run(tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, guide())
    assert len(guide().splitlines()) < 24
    raw = {key: value for key, value in tiny.items() if key != "name"}
    raw |= {"pairs": [f"{file}:MyNet -> my_net"], "methods": ["kd", "block_kd", "logit_free"], "seeds": 1}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    words = ["run", str(tmp_path / "own.yaml"), "--plugin", str(file), "--results", str(tmp_path / "results")]
    assert call(*words) == 0
    assert {record.status for record in scan(tmp_path / "results" / "own")} == {"finished"}
    prints = {record.folder.name for record in scan(tmp_path / "results" / "own")}
    weights = next(tmp_path.glob("results/own/runs/*/student.safetensors"))
    with pytest.raises(UserError, match=r"the code of .*run_code=True"):
        student.load(weights)
    assert student.load(weights, run_code=True)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert call("export", weights.parent.name, str(tmp_path / "x.pth"), "--results", str(tmp_path / "results")) == 0
    assert {*torch.load(tmp_path / "x.pth")["state_dict"]} >= {"stem.weight", "fc.bias"}  # under its own names
    again = write(tmp_path / "again", guide() + "\n# edited\n")
    raw["pairs"] = [f"{again}:MyNet -> {again}:MyNet"]
    assert models.version(f"{again}:MyNet") != models.version(f"{file}:MyNet") == models.version("my_net")
    assert len(prints) == 3 and models.version("resnet8") == models.version("torchvision/resnet18") == ""


def test_stages_by_name_are_cut_or_watched(tmp_path: Path) -> None:
    named = models.build(f"{write(tmp_path, guide())}:MyNet", size=16, n_classes=5)
    assert isinstance(named, Graphed) and [f[0] for f in named.dims().feats] == [16, 16, 32]
    watched = models.build(f"{write(tmp_path, WATCHED, 'watched.py')}:Net", size=16, n_classes=5)
    assert isinstance(watched, Whole) and [f[0] for f in watched.dims().feats] == [4, 6] and not watched.dims().tails
    out = watched(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(watched.net.fc(out.pooled), out.logits)  # type: ignore[union-attr,operator]
    torch.testing.assert_close(out.feats[1].relu().mean((2, 3)), out.pooled)
    found = models.build(f"{write(tmp_path, NET, 'found.py')}:Net", size=16, n_classes=5)
    assert isinstance(found, Graphed) and found.dims().n_stages == 1
    for net in (named, watched, found):
        with pytest.raises(ValueError, match=r"tap|cut"):
            net.tail(9, out.feats[0])


def test_it_may_import_its_neighbours_which_are_part_of_its_version(tmp_path: Path) -> None:
    versions = []
    for i, more in enumerate(("", "\n# edited\n")):
        folder = tmp_path / f"package{i}"
        write(folder, "width = 4" + more, f"neighbour{i}.py")
        file = write(folder, f"from neighbour{i} import width\n" + NET)
        models.build(f"{file}:Net", size=8)
        versions.append(models.version(f"{file}:Net"))
        assert str(folder) not in sys.path
    same = write(tmp_path / "package2", "from neighbour0 import width\n" + NET)
    assert len({*versions}) == 2 and same.is_file()


def test_a_hub_folder_and_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "hub", NET + "\ndef small(pretrained=False, **kwargs):\n    return Net(**kwargs)\n", "hubconf.py")
    assert models.build(f"{tmp_path / 'hub'}:small", size=8, n_classes=4).n_classes == 4
    point = EntryPoint("mine", "tests.models.test_own:Packaged", own.GROUP)
    monkeypatch.setattr(own, "_points", lambda: {"mine": point})
    assert models.build("mine", size=8, n_classes=4).dims().pooled == 3
    assert models.version("mine") == "tests.models.test_own:Packaged"


class Packaged(nn.Module):
    """What a package registers."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, 2), nn.Linear(3, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_two_plug_ins_of_one_name(tmp_path: Path) -> None:
    assert own.register_plugin(str(write(tmp_path / "a", NET))) and own.register_plugin(
        str(tmp_path / "a" / "my_net.py")
    )
    with pytest.raises(UserError, match="have that name already; rename"):
        own.register_plugin(str(write(tmp_path / "b", NET)))


def test_a_plug_in_takes_no_known_network_s_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a network 'vgg8' exists already; rename the file"):
        models.register_plugin(str(write(tmp_path, NET, "vgg8.py")))


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as without:
        without.setitem(sys.modules, "transformers", None)
        with pytest.raises(UserError, match=r"pip install kdbench\[hf\]"):
            models.build("hf/google/vit-base-patch16-224", size=16)
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=5)
    made = transformers.ViTForImageClassification(config)
    made.save_pretrained(tmp_path)
    net = models.build(f"hf/{tmp_path}", size=16, n_classes=5)
    assert "names after" not in models.load_state(net, tmp_path)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net.eval()(x).logits, made.eval()(x).logits)
    assert net.dims().pooled == 16 and len(models.version(f"hf/{tmp_path}")) == 12
    with pytest.raises(UserError, match=r"config\.json"):
        models.build(f"hf/{tmp_path / 'none'}", size=16)


def of_library(size: object, **processor: Any) -> SimpleNamespace:
    """What stands in for `transformers`, and says this of a repository's images."""
    how = SimpleNamespace(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.2, 0.1], size=size, **processor)
    return SimpleNamespace(
        AutoConfig=SimpleNamespace(from_pretrained=lambda where: SimpleNamespace(num_labels=7)),
        AutoImageProcessor=SimpleNamespace(from_pretrained=lambda where: how),
    )


@pytest.mark.parametrize(
    ("processor", "pixels"),
    [
        ({"size": {"height": 224, "width": 224}}, 224),
        ({"size": {"shortest_edge": 256}}, 256),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, 224),
        ({"size": {"shortest_edge": 256}, "do_center_crop": False, "crop_size": {"height": 224, "width": 224}}, 256),
    ],
    ids=str,
)
def test_what_images_the_weights_of_hugging_face_expect(
    processor: dict[str, Any], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hugging_face.config_of.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", of_library(**processor))  # type: ignore[arg-type]
    expected = ExpectedInput((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), pixels)
    assert models.packaged("hf/someone/net") == (expected, 7)
    hugging_face.config_of.cache_clear()


def test_weights_of_hugging_face_that_say_nothing_of_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    hugging_face.config_of.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", of_library({"longest_edge": 256}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'hf/someone/net' does not say which images .*; write teacher_input: \{mean"):
        models.packaged("hf/someone/net")
    hugging_face.config_of.cache_clear()
