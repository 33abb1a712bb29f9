from __future__ import annotations

from bench.suite.plain import changes, flat


def test_nested_settings_are_one_level_of_names() -> None:
    assert flat({"kd": {"tau": 2, "more": {"x": None}}, "lr": 0.1}) == {"kd.tau": 2, "kd.more.x": None, "lr": 0.1}


def test_changes_name_every_key_of_nested_mappings() -> None:
    assert changes({}, {}) == changes({"a": (1, 2)}, {"a": [1, 2]}) == changes({"a": None, "p": {}}, {}) == {}
    before, now = {"a": 1, "p": {"x": 1, "y": None}}, {"p": {"x": 2, "y": None}, "c": "z"}
    assert list(changes(before, now).items()) == [("a", (1, None)), ("p.x", (1, 2)), ("c", (None, "z"))]
