"""The wording of what users read is on file, and the file holds nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prose as module
from tests.prose import COLLECTED, Prose, left_over, numbers, read, write


def test_every_text_on_file_has_its_test(pytestconfig: pytest.Config) -> None:
    assert left_over(read(), pytestconfig.stash[COLLECTED]) == [], "type pytest --write-prose"


def test_an_entry_whose_test_is_no_more_is_found() -> None:
    here, gone = "tests/test_prose.py::test_old", "tests/test_gone.py::test_any"
    elsewhere = "tests/test_cli.py::test_any"  # a file that has not been collected is not judged
    assert left_over([here, gone, elsewhere], ["tests/test_prose.py::test_new"]) == [here, gone]
    assert left_over([here], [here]) == left_over([elsewhere], []) == []


def test_a_text_that_is_not_on_file_fails_and_says_what_to_type() -> None:
    told = Prose("t.py::test_a", ["kd wins", "by 2"], writing=False, temporary=Path("/tmp/x"))
    told("kd wins")
    for text in ("by 3", "more"):
        with pytest.raises(pytest.fail.Exception, match=r"pytest --write-prose 't\.py::test_a'(.|\n)*\+ " + text):
            told(text)
    with pytest.raises(pytest.fail.Exception, match=r"type pytest --write-prose"):
        Prose("t.py::test_a", ["in <folder>", "no more"], writing=False, temporary=Path("/tmp/x")).close()


def test_writing_replaces_the_entry_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE", tmp_path / "prose.yaml")
    read.cache_clear()
    write({"b": ["kept"], "a": ["old", "older"], "c": []})
    told = Prose("a", ["old", "older"], writing=True, temporary=Path("/tmp/x"))
    told("−1 × 2 in /tmp/x/y-1/z:\n- one\n- two")
    told.close()
    assert read() == {"a": ["−1 × 2 in <folder>/z:\n- one\n- two"], "b": ["kept"]}
    assert (tmp_path / "prose.yaml").read_text().splitlines()[:3] == ["a:", "- |-", "  −1 × 2 in <folder>/z:"]
    read.cache_clear()


def test_numbers_of_a_text() -> None:
    text = "resnet8w4: +1,250 (n=2) beats 2.5 by −0.5 points [-1, 2] at 5 %, kd_2, top-1 and 7."
    assert numbers(text) == [1250, 2, 2.5, -0.5, -1, 2, 5, 7]
