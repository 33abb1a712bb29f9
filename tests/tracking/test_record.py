from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.prose import Prose
from tests.tracking.conftest import FINAL, Make, environment, rows, spec
from tracking.lines import encode, epoch_line
from tracking.record import Record, RecordError, scan


def test_round_trip(make: Make) -> None:
    written = make()
    record = Record(written.folder)
    assert record.header["spec"] == spec() and record.header["environment"] == environment()
    assert record.header["fingerprint"] == "f0" and record.header["schema"] == 2
    assert record.epochs == rows(3)
    assert record.status == "finished" and record.is_intact()
    final = record.final
    assert final is not None and final["metrics"].keys() == FINAL.keys()
    assert math.isnan(final["metrics"]["test/nll"]) and final["metrics"]["cost/step_ms"] == math.inf
    assert [json.loads(line)["kind"] for line in record.path.read_text().splitlines()] == ["run", *["epoch"] * 3, "end"]


def test_what_is_not_json_becomes_json(tmp_path: Path) -> None:
    record = Record(tmp_path / "x")
    record.begin("x", {"hp": {10: (1, 2), 9: np.float32(0.5)}, "at": Path("a")}, {"n": np.int64(3)})
    record.write_epochs([{"epoch": 1, "time": 1, "metrics": {"a": np.float64(0.1), "b": 2}}])
    again = Record(record.folder)
    assert again.header["spec"] == {"hp": {"10": [1, 2], "9": 0.5}, "at": "a"} and again.environment == {"n": 3}
    assert again.epochs == [{"epoch": 1, "time": 1.0, "metrics": {"a": 0.1, "b": 2.0}}]


def test_running_until_its_end(make: Make) -> None:
    record = make(status=None)
    assert record.status == "running" and record.final is None and record.files() == {} and not record.is_intact()


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_torn_last_line_is_passed_over_and_repaired(make: Make, cut: int) -> None:
    record = make(status=None)
    whole = record.path.read_bytes()
    record.path.write_bytes(whole[:-cut])
    torn = Record(record.folder)
    assert torn.epochs == rows(2)
    torn.write_epochs(rows(3))
    assert record.path.read_bytes() == whole


def test_torn_end_leaves_the_run_open(make: Make) -> None:
    record = make()
    record.path.write_bytes(record.path.read_bytes()[:-9])
    assert Record(record.folder).status == "running"
    record.end("finished", "", FINAL, [])
    assert Record(record.folder).status == "finished"


@pytest.mark.parametrize("line", [1, 2, 5])
def test_every_flipped_digit_is_found(make: Make, line: int) -> None:
    record = make()
    texts = record.path.read_bytes().splitlines(keepends=True)
    for at in [i for i, byte in enumerate(texts[line - 1]) if chr(byte).isdigit()]:
        flipped = bytearray(texts[line - 1])
        flipped[at] ^= 1
        record.path.write_bytes(b"".join([*texts[: line - 1], bytes(flipped), *texts[line:]]))
        with pytest.raises(RecordError, match=rf"record\.jsonl: (line {line} is damaged|written by a newer version)"):
            Record(record.folder).read()


def gone(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], *lines[2:]]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def headless(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


@pytest.mark.parametrize(("spoil", "at"), [(gone, 3), (doubled, 4), (swapped, 2), (headless, 1)])
def test_a_line_out_of_place_is_found(make: Make, spoil: Callable[[list[bytes]], list[bytes]], at: int) -> None:
    record = make()
    whole = record.path.read_bytes()
    record.path.write_bytes(b"".join(spoil(whole.splitlines(keepends=True))))
    with pytest.raises(RecordError, match=rf"record\.jsonl: line {at} is damaged; run its suite again"):
        Record(record.folder).read()


def test_lines_of_another_run_are_found(make: Make) -> None:
    one, two = make(0), make(1)
    head, body = one.path.read_bytes().splitlines(keepends=True)[0], two.path.read_bytes().splitlines(keepends=True)[1:]
    one.path.write_bytes(b"".join([head, *body]))
    with pytest.raises(RecordError, match="line 2 is damaged"):
        Record(one.folder).read()


def test_a_damaged_record_goes_on_from_the_lines_before_the_damage(make: Make) -> None:
    record = make()
    identity, whole = record.header["id"], record.path.read_bytes()
    assert Record(record.folder).repair() == ""
    damaged = b"".join(gone(whole.splitlines(keepends=True)))
    record.path.write_bytes(damaged)
    assert "line 3 is damaged (kept as" in Record(record.folder).repair()
    assert record.path.with_suffix(".damaged").read_bytes() == damaged
    again = Record(record.folder)
    assert again.status == "running" and again.epochs == rows(1) and again.header["id"] == identity
    again.write_epochs(rows(3))
    again.end("finished", "", FINAL, ["student.safetensors", "predictions.npz"])
    assert Record(record.folder).epochs == rows(3) and again.is_intact()


def test_a_record_without_its_header_is_taken_away(make: Make) -> None:
    record = make()
    record.path.write_bytes(b"\0" * 512 + record.path.read_bytes()[512:])
    assert "line 1 is damaged" in Record(record.folder).repair()
    assert record.status == "absent"
    record.begin("f0", spec(), environment())
    assert record.status == "running"


def test_records_of_the_first_schema_are_read_and_go_on_as_such(make: Make) -> None:
    old = make(status=None)
    header = {**old.header, "schema": 1}
    lines = [encode(line) for line in (header, *map(epoch_line, rows(3)))]
    old.path.write_text("".join(lines))
    record = Record(old.folder)
    assert record.epochs == rows(3)
    record.write_epochs(rows(4))
    record.end("finished", "", FINAL, [])
    assert Record(old.folder).status == "finished" and Record(old.folder).epochs == rows(4)
    assert old.path.read_text().startswith("".join(lines))


def test_a_file_that_was_left_is_known_by_its_checksum(make: Make, prose: Prose) -> None:
    record = make()
    assert record.file("student.safetensors") == record.folder / "student.safetensors"
    assert record.file("nothing.npz") is None
    (record.folder / "predictions.npz").write_bytes(b"nqz")
    assert record.damaged_files() == [record.folder / "predictions.npz"]
    with pytest.raises(RecordError, match=r"predictions\.npz: damaged") as error:
        record.file("predictions.npz")
    prose(str(error.value))


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"[1]\n", b"{}\n", b"\xff\n", b'{"kind":"end"}\n'])
def test_no_record_at_all(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "record.jsonl").write_bytes(data)
    with pytest.raises(RecordError, match=r"record\.jsonl: "):
        Record(tmp_path).begin("f", {}, {})


def test_missing_record(tmp_path: Path) -> None:
    assert Record(tmp_path).status == "absent" and not Record(tmp_path).is_intact()
    with pytest.raises(RecordError, match="No such file"):
        _ = Record(tmp_path).header


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text('{"kind":"run","schema":3,"sum":"another kind"}\n')
    with pytest.raises(RecordError, match="written by a newer version"):
        Record(tmp_path).read()


def test_begin_keeps_a_finished_record(make: Make) -> None:
    record = make()
    before = record.path.read_bytes()
    record.begin("f0", spec(), environment(pid=1))
    assert record.path.read_bytes() == before


@pytest.mark.parametrize("status", ["interrupted", "failed", "diverged"])
def test_begin_opens_an_unfinished_record_again(make: Make, status: str) -> None:
    record = make(status=status)
    identity = record.header["id"]
    record.begin("f0", spec(), environment(pid=1))
    record.begin("f0", spec(), environment(pid=1))
    again = Record(record.folder)
    assert again.status == "running" and again.epochs == rows(3) and again.header["id"] == identity
    assert again.environment == environment(pid=1) and again.header["environment"] == environment()
    assert len(again.header["resumed"]) == 1


def test_begin_opens_a_finished_record_whose_files_are_damaged(make: Make) -> None:
    record = make()
    (record.folder / "predictions.npz").write_bytes(b"other")
    assert not record.is_intact()
    record.begin("f0", spec(), environment())
    assert record.status == "running"


def test_begin_refuses_another_run(make: Make) -> None:
    with pytest.raises(RecordError, match="holds run f0, not f1"):
        make().begin("f1", spec(), environment())


def test_hold_epochs_appends_and_rewrites(make: Make) -> None:
    record = make(status=None)
    before = record.path.read_bytes()
    record.write_epochs(rows(3))
    assert record.path.read_bytes() == before
    record.write_epochs(rows(5))
    assert record.path.read_bytes().startswith(before)
    record.write_epochs(rows(2))
    assert Record(record.folder).epochs == rows(2)
    other = [{**row, "time": row["time"] + 9} for row in rows(2)]
    record.write_epochs(other)
    assert Record(record.folder).epochs == other


def test_hold_epochs_knows_nan(make: Make) -> None:
    record = make(status=None, epochs=0)
    row = {"epoch": 1, "time": 1.0, "metrics": {"loss": float("nan"), "top": float("inf")}}
    record.write_epochs([row])
    before = record.path.stat()
    record.write_epochs([{**row, "metrics": {"loss": np.float32("nan"), "top": float("inf")}}])
    assert record.path.stat().st_mtime_ns == before.st_mtime_ns


def test_other_epochs_take_the_end_away(make: Make) -> None:
    record = make()
    record.write_epochs(rows(3))
    assert record.status == "finished"
    record.write_epochs(rows(4))
    assert record.status == "running" and record.epochs == rows(4)


def test_a_finished_record_that_grows_notes_where(make: Make) -> None:
    record = make()
    for pid in (1, 1, 2):
        record.begin("f0", spec(), environment(pid=pid))
        assert record.status == "finished" and record.environment == environment()
    record.write_epochs(rows(4))
    assert Record(record.folder).environment == environment(pid=2) and len(record.header["resumed"]) == 1
    record.write_epochs(rows(2))
    assert len(Record(record.folder).header["resumed"]) == 1


def test_end_checks_its_files(make: Make) -> None:
    record = make(status=None)
    with pytest.raises(RecordError, match=r"nothing\.bin is missing"):
        record.end("finished", "", {}, ["nothing.bin"])
    with pytest.raises(RecordError, match="no status 'done'"):
        record.end("done", "", {}, [])
    assert record.status == "running"


def test_intact_sees_a_lost_and_a_changed_file(make: Make) -> None:
    record = make()
    weights = record.folder / "student.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(b"\1" + data[1:])
    assert not record.is_intact()
    weights.write_bytes(data)
    assert record.is_intact()
    weights.unlink()
    assert not record.is_intact()


def test_end_twice_keeps_the_last(make: Make) -> None:
    record = make(status="interrupted")
    record.end("failed", "out of memory", {}, [])
    assert Record(record.folder).final == record.final and record.status == "failed"


def test_scan_is_sorted(make: Make, tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        make(seed)
    assert [record.folder.name for record in scan(tmp_path / "tiny")] == ["f0", "f1", "f2"]
    assert scan(tmp_path / "nowhere") == []
