"""Nothing that a stranger wrote is run, nothing is written where a name leads out, and no secret is written at all."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from bench import data as datasets
from bench.data import cache
from bench.data.spec import ImageFolderSpec, ParquetSpec, TorchvisionSpec
from bench.environment import describe
from bench.errors import UserError
from bench.jobs import checkpoint
from bench.models import student
from bench.report.stats_examples import predictions
from bench.suite.suite import validate
from tests.conftest import TINY
from tests.damage.conftest import run
from tests.test_cli import call
from tests.test_house import ROOT, SOURCES, module
from tracking.record import Record, RecordError, scan

SAFE = {  # how each reader that could unpickle must be called
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
}
NEVER = re.compile(
    r"(c?[pP]ickle|dill|marshal|joblib|shelve)\.\w+|pd\.read_pickle|yaml\.(unsafe_|full_)?load(_all)?|eval|exec"
    r"|os\.system|os\.popen|tarfile\.\w+|shutil\.unpack_archive|\w+\.extractall"
)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_every_reader_is_a_safe_one(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name, said = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in SAFE:
            key, value = SAFE[name]
            assert said.get(key) == str(value), f"{path.name}:{node.lineno}: {name} without {key}={value}"
        assert said.get("shell") != "True", f"{path.name}:{node.lineno}"
        if NEVER.fullmatch(name):
            plain = name == "yaml.load" and ast.unparse(node.args[1]) == "_Loader" and path.name == "plain.py"
            tar = path.name == "parts.py" and (name == "tarfile.open" or said.get("filter") == "'data'")
            assert plain or tar, f"{path.name}:{node.lineno}: {name}"


def test_servers_answer_this_machine_alone() -> None:
    texts = [path.read_text() for path in (*SOURCES, ROOT / "Makefile")]
    hosts = [host for text in texts for host in re.findall(r"--host[\"', =]+([\w.:]+)", text)]
    assert len(hosts) >= 2 and set(hosts) == {"127.0.0.1"}
    assert not [text for text in texts if re.search(r"0\.0\.0\.0(?!/)|host=\"\"", text)]


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "pwned"


@pytest.fixture
def bomb(mark: Path) -> bytes:
    data = pickle.dumps(Bomb(mark), protocol=2)
    pickle.loads(data)
    assert mark.exists(), "the bomb works"
    mark.unlink()
    return data


def saved(mark: Path, state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a suite of one run was run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({k: v for k, v in TINY.items() if k != "name"}))
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDBENCH_OFFLINE", "1")
        assert run(VANILLA, folder / "results").n_trained == 1
        yield folder


VANILLA: dict[str, Any] = {**TINY, "methods": ["vanilla"], "seeds": 1}


def words(folder: Path, command: str = "run") -> list[str]:
    narrow = ["--methods", "vanilla", "--seeds", "1", "--quiet"] if command == "run" else []
    return [command, str(folder / "tiny.yaml"), "--results", str(folder / "results"), *narrow]


def the_run(folder: Path) -> Record:
    return scan(folder / "results" / "tiny")[0]


def signed(record: Record, name: str, data: bytes) -> None:
    """Replace a file of a run, and its checksum in the record: what a stranger with the folder can do."""
    (record.folder / name).write_bytes(data)
    final = record.final
    assert final is not None
    record.end(final["status"], final["reason"], final["metrics"], final["files"])


def test_a_checkpoint_is_not_unpickled(ran: Path, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = the_run(ran)
    top1 = (record.final or {})["metrics"]["test/top1"]
    payload = saved(mark, {"format": 2, "weights": Bomb(mark)})
    record.end("interrupted", "", {}, [])
    path = record.folder / "checkpoint.pt"
    path.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    assert checkpoint.load(path) is None
    assert run(VANILLA, ran / "results").n_trained == 1 and "checkpoint.pt: damaged" in capsys.readouterr().err
    assert not mark.exists() and (the_run(ran).final or {})["metrics"]["test/top1"] == top1


def test_a_cached_teacher_is_not_unpickled(ran: Path, mark: Path, bomb: bytes) -> None:
    record = Record(next(ran.glob("results/teachers/*/record.jsonl")).parent)
    whole = (record.folder / "teacher.safetensors").read_bytes()
    for data in (bomb, saved(mark, {"a": Bomb(mark)})):
        signed(record, "teacher.safetensors", data)
        assert call(*words(ran), "--rerun") == 2
    signed(record, "teacher.safetensors", whole)
    assert run(VANILLA, ran / "results", rerun=True).n_trained == 1 and not mark.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_teacher_file_is_not_unpickled(ran: Path, mark: Path, bomb: bytes, tmp_path: Path, suffix: str) -> None:
    for i, data in enumerate((bomb, saved(mark, {"state_dict": Bomb(mark)}))):
        file = tmp_path / f"teacher{i}{suffix}"
        file.write_bytes(data)
        pair = f"pairs=[{{teacher: resnet8w8, student: resnet8w4, teacher_file: {file}}}]"
        assert call(*words(ran), "--set", pair) == 2
    assert not mark.exists()


def test_predictions_are_not_unpickled(ran: Path, mark: Path, bomb: bytes) -> None:
    record = the_run(ran)
    whole = (record.folder / "predictions.npz").read_bytes()
    arrays = dict(np.load(io.BytesIO(whole), allow_pickle=False))
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, "label": np.array([Bomb(mark)], dtype=object)})  # type: ignore[arg-type]
    for data in (buffer.getvalue(), bomb):
        signed(record, "predictions.npz", data)
        assert call(*words(ran, "report")) == 2
        with pytest.raises(UserError, match="not readable as predictions"):
            predictions(record.folder / "predictions.npz")
    signed(record, "predictions.npz", whole)
    assert not mark.exists()


def test_a_student_is_not_unpickled(ran: Path, mark: Path, bomb: bytes, tmp_path: Path) -> None:
    for data in (bomb, saved(mark, Bomb(mark)), b"\x02\0\0\0\0\0\0\0{}", b""):
        (tmp_path / "s.safetensors").write_bytes(data)
        with pytest.raises(UserError, match="student"):
            student.load(tmp_path / "s.safetensors")
    assert not mark.exists()


def test_a_student_says_no_network_that_fits_no_machine(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    about = '{"arch": "wrn_40_9999", "in_channels": 3, "size": 32, "n_classes": 100}'
    save_file({"network.a": torch.zeros(1)}, tmp_path / "s.safetensors", {"network": about})
    with pytest.raises(UserError, match="parameters"):
        student.load(tmp_path / "s.safetensors")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_shards_are_not_unpickled(mark: Path, bomb: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an image nor the type of a column, which old versions of Arrow kept as a pickle."""
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    images = pa.array([{"bytes": png(), "path": "../../x"}] * 39 + [{"bytes": bomb, "path": None}])
    typed = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": bomb}
    label = pa.field("label", pa.int64(), metadata=typed)
    table = pa.table([images, pa.array([0, 1] * 20)], schema=pa.schema([pa.field("img", images.type), label]))
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}-00000.parquet")
    with pytest.raises(UserError, match="row 39: not a readable image"):
        datasets.load(ParquetSpec(source="parquet", path=str(tmp_path), validation=10))
    assert not mark.exists()


def test_decoded_images_are_not_unpickled(
    mark: Path, bomb: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    array = np.zeros((2, 1, 3, 3), np.uint8)
    (tmp_path / "cache").mkdir()
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(mark)], dtype=object))
    for data in (bomb, buffer.getvalue()):
        (tmp_path / "cache" / "key.npy").write_bytes(data)
        assert (cache.load_or_build("key", lambda: array) == array).all()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CIFAR10", "cifar-10-batches-py/{}"),
        ("CIFAR100", "cifar-100-python/{}"),
        ("FashionMNIST", "FashionMNIST/processed/{}"),
    ],
)
def test_torchvisions_sets_are_not_unpickled(name: str, file: str, mark: Path, bomb: bytes, tmp_path: Path) -> None:
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "train", "test", "meta"]
    for each in (*batches, "training.pt", "test.pt"):
        path = tmp_path / file.format(each)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bomb)
    with pytest.raises(UserError, match=f"{name} is not in"):
        datasets.load(TorchvisionSpec(source="torchvision", name=name, root=str(tmp_path), validation=10))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../out", "a/b", "..", ".hidden", "a\\b", "a\nb", "a\0b", "x" * 200, ""])
def test_no_name_leads_out_of_the_results(name: str) -> None:
    for change in ({"name": name}, {"methods": [{"method": "kd", "label": name or "/"}]}):
        with pytest.raises(UserError, match=r"test: '(name|methods\.0\.label)'"):
            validate({**TINY, **change}, "test")
    with pytest.raises(UserError, match=r"test: '?methods\.0\.study"):
        validate({**TINY, "methods": [{"method": "kd", "recipe": "tuned", "study": name or "/"}]}, "test")


def test_a_folder_of_images_does_not_lead_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for kind in ("a", "b"):
            (tmp_path / "set" / split / kind).mkdir(parents=True)
            for i in range(8):
                (tmp_path / "set" / split / kind / f"{i}.png").write_bytes(png())
    spec = ImageFolderSpec(source="image_folder", path=str(tmp_path / "set"), size=8, validation=4, mean=(0,), std=(1,))
    colour = spec.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})
    link = tmp_path / "set" / "train" / "a" / "8.png"
    link.symlink_to(tmp_path / "set" / "train" / "a" / "0.png")
    assert len(datasets.load(colour).train) == 13
    (tmp_path / "secret.png").write_bytes(png())
    link.unlink()
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"8\.png: a link that leads out of"):
        datasets.load(colour)
    link.unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "train" / "c").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"train/c: a link that leads out of"):
        datasets.load(colour)


SECRET = "pl4nted"
PLANTED = {
    "MLFLOW_TRACKING_USERNAME": "me",
    "MLFLOW_TRACKING_PASSWORD": f"{SECRET}-1",
    "MLFLOW_TRACKING_TOKEN": f"{SECRET}-2",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}-3",
    "HF_TOKEN": f"hf_{SECRET}",
    "DATABASE_URL": f"postgresql://me:{SECRET}@db/x",
    "SOME_API_KEY": f"{SECRET}-4",
}


def leaks(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and (SECRET.encode() in p.read_bytes() or SECRET in str(p))]


@pytest.mark.parametrize("uri", [None, f"http://me:{SECRET}-5@127.0.0.1:9"])
def test_no_secret_is_written(
    uri: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KDBENCH_OFFLINE", raising=False)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({k: v for k, v in TINY.items() if k != "name"}))
    (tmp_path / "leaky.py").write_text(
        "import os\nfrom methods.kd import KD\nclass Leaky(KD):\n"
        "    def loss(self, s, t, y, at):\n        raise OSError('cannot reach ' + os.environ['DATABASE_URL'])\n"
    )
    narrow = ["--methods", "vanilla,leaky", "--seeds", "1", "--plugin", str(tmp_path / "leaky.py")]
    try:
        assert call("run", str(tmp_path / "tiny.yaml"), "--results", str(tmp_path / "results"), *narrow) == 1
    finally:
        os.environ.pop("KDBENCH_PLUGINS", None)
    (tmp_path / "tiny.yaml").unlink()
    text = "".join(capfd.readouterr())
    assert "postgresql://me:***@db/x" in text and SECRET not in text
    assert len([*(tmp_path / "results").rglob("*")]) > 20 and not leaks(tmp_path / "results")


def test_a_command_line_is_recorded_without_its_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "kdbench",
        "tune",
        "--storage",
        f"postgresql://me:{SECRET}@db/x",
        f"--from=http://{SECRET}@h",
        f"token={SECRET}",
    ]
    monkeypatch.setattr("sys.argv", words)
    said = describe(torch.device("cpu"))
    assert SECRET not in str(said) and "postgresql://me:***@db/x" in said["command"]


def test_a_record_that_is_not_what_it_was_is_not_reported(ran: Path) -> None:
    record = the_run(ran)
    whole = record.path.read_text()
    record.path.write_text(re.sub(r'("test/top1":)\d', r"\g<1>9", whole, count=1))
    with pytest.raises(RecordError, match="is damaged"):
        Record(record.folder).read()
    assert call(*words(ran, "report")) == 2
    record.path.write_text(whole)
