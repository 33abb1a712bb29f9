"""The golden tests take their numbers from the file: an equally right file with others is compared by its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.methods import golden
from tests.methods import test_golden_logits as logits
from tests.methods import test_golden_maps as maps
from tests.methods import test_golden_others as others
from tests.methods.golden import Golden

pytestmark = pytest.mark.golden
Change = Callable[[Golden], None]
Compare = Callable[[], None]

READ: list[tuple[Compare, str]] = [  # the hyper-parameters that an output of the file depends on
    (logits.test_kd, "T ce_weight kd_weight"),
    (logits.test_dkd, "T alpha beta ce_weight epoch warmup"),
    (partial(logits.test_block_kd_formula, True), "T alpha beta gamma n_blocks"),
    (partial(logits.test_mlkd, "mlkd"), "ce_weight kd_weight temperatures"),
    (partial(logits.test_mlkd, "lskd_mlkd"), "ce_weight kd_weight temperatures"),
    (logits.test_dist, "beta gamma tau"),
    (partial(logits.test_lskd, "lskd_kd"), "T ce_weight kd_weight"),
    (partial(logits.test_lskd, "lskd_dkd"), "T alpha beta"),
    (logits.test_nkd, "gamma temp"),
    (logits.test_ctkd, "ce_weight kd_weight epoch decay_loops decay_max decay_min t_start t_end"),
    (logits.test_sld, "ce_weight kd_weight gamma_epoch student_teacher_detached temperatures"),
    (logits.test_sld_single_view, "T ce_weight kd_weight gamma_epoch"),
    (partial(maps.test_fitnet, "fitnet"), "feat_weight"),
    (maps.test_at, "p"),
    (maps.test_vid, "eps init_log_scale init_pred_var"),
    (partial(maps.test_kdsvd, "kdsvd"), "k"),
    (maps.test_ab, "margin"),
    (maps.test_ft, "k"),
    (maps.test_reviewkd, "epoch feat_weight warmup"),
    (maps.test_simkd, "factor"),
    (others.test_crd, "T feat_dim momentum n_data"),
    (others.test_rkd, "angle_weight distance_weight"),
    (partial(others.test_pooled, "pkt"), "eps"),
    (partial(others.test_pooled, "cc_rbf"), "P_order gamma"),
    (others.test_cc, "embed_dim"),
    (others.test_dot, "delta lr momentum steps weight_decay"),
    (others.test_knowledge_quality, "dataset_size"),
]


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Every file of the project's own folder, changed after it was read; what is compared is not reported."""
    monkeypatch.setattr(golden, "FOLDER", Path(__file__).parents[1] / "golden" / "methods")
    monkeypatch.setattr(golden, "WORST", defaultdict(list))
    monkeypatch.setattr(golden, "SEEN", set())
    read = Golden.__init__

    def by(change: Change) -> None:
        def read_and_change(g: Golden, name: str) -> None:
            read(g, name)
            change(g)

        monkeypatch.setattr(Golden, "__init__", read_and_change)

    return by


@pytest.mark.parametrize(("compare", "key"), [(compare, key) for compare, keys in READ for key in keys.split()])
def test_no_hyper_parameter_is_written_into_a_test(
    compare: Compare, key: str, change: Callable[[Change], None]
) -> None:
    def another(g: Golden) -> None:
        value = g.hyper[key]
        g.hyper[key] = [v + 1 for v in value] if isinstance(value, list) else value + 1

    change(another)
    with pytest.raises((AssertionError, KeyError, RuntimeError)):  # a wrong value, or arrays that do not fit it
        compare()


@pytest.mark.parametrize(
    ("compare", "names"),
    [
        (logits.test_sld, {"epoch150": "epoch7", "epoch151": "epoch19"}),
        (logits.test_sld_single_view, {"epoch150": "epoch7", "epoch151": "epoch19"}),
        (logits.test_ctkd, {"epoch1_to_15": "epoch1_to_12"}),
    ],
)
def test_other_epochs(compare: Compare, names: dict[str, str], change: Callable[[Change], None]) -> None:
    """The same numbers at other epochs on either side of the switch, and a shorter schedule."""

    def rename(g: Golden) -> None:
        g.hyper |= {"gamma_epoch": 7} if "gamma_epoch" in g.hyper else {}
        for old, new in names.items():
            for key in [key for key in g.arrays if old in key]:
                array = g.arrays.pop(key)
                g.arrays[key.replace(old, new)] = array[:12] if array.ndim == 1 else array  # one number per epoch

    change(rename)
    compare()


@pytest.mark.parametrize(
    "compare",
    [
        *(maps.test_at, maps.test_nst, maps.test_vid, maps.test_fsp, maps.test_ab, maps.test_ofd, maps.test_logit_free),
        *(partial(maps.test_kdsvd, "kdsvd"), partial(maps.test_kdsvd, "kdsvd_mdistiller")),
        others.test_knowledge_quality,
    ],
)
def test_fewer_stages(compare: Compare, change: Callable[[Change], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its last stage a file is read to its end; what depends on all stages is compared by its shape alone."""

    def cut(g: Golden) -> None:
        last = max(g.numbers("in_feat_s_") or g.numbers("in_layer", "_features"))
        for key, array in list(g.arrays.items()):
            first = re.search(r"\d+", key)
            if first and int(first[0]) == last:
                del g.arrays[key]
            elif key.startswith("out_") and array.shape in ((last,), (last + 1,)):
                g.arrays[key] = array[:-1]
        if "out_quality" in g.arrays:
            g.arrays["out_rank_desc"] = g["out_quality"].argsort(descending=True)

    def shapes(g: Golden, key: str, ours: object) -> None:
        assert getattr(ours, "shape", None) == g[key].shape
        g.compared.add(key)

    change(cut)
    monkeypatch.setattr(Golden, "close", shapes)
    compare()
