"""However a run goes and ends: one row per frame, an account that balances, a closed run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky.preprocessors import set_run_key_wrapper as keyed
from bluesky.run_engine import RunEngine, RunEngineInterrupted
from endings_support import Line, RawRuns, broken, detector_of, interrupted, points
from ways_support import Named, Recorder, emit, eventually, run_engine

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.health.audit import Books, audit
from ptychoseg_stream.node.ports import Account
from ptychoseg_stream.science.frame import Mask
from ptychoseg_stream.sinks.hdf5 import HDF5Sink
from ptychoseg_stream.sinks.memory import MemorySink
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.stored import StoredRun, open_stored

KINDS = ["inline", "file"]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[Callable[..., Line]]:
    lines: list[Line] = []

    def make(sink: Any, raw: Any = None, **options: Any) -> Line:
        lines.append(Line(sink, tmp_path / f"spool-{len(lines)}", raw, **options))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


@pytest.fixture
def line(make_line: Callable[..., Line], sink: MemorySink) -> Line:
    return make_line(sink)


@pytest.fixture
def RE(line: Line) -> Iterator[RunEngine]:
    with run_engine() as engine:
        engine.subscribe(line)
        yield engine


def only(sink: MemorySink) -> tuple[list[Mask], Account]:
    (uid,) = sink.runs
    return sink.rows[uid], sink.accounts[uid]


def check_rows(rows: list[Mask], count: int) -> None:
    """Assert that there is one row per frame, in order, each with the mask of that frame."""
    assert [mask.frame.index for mask in rows] == list(range(count))
    assert [mask.plateau for mask in rows] == list(range(count))
    assert {mask.status for mask in rows} == {"ok"}


def check_account(account: Account, received: int, exit_status: str, reason: str = "") -> None:
    assert (account.received, account.written, account.lost) == (received, received, 0)
    assert account.exit_status == exit_status
    assert reason in account.reason
    assert account.imbalance == ""


def recorded(count: int, folder: Path, kind: str = "inline") -> Recorder:
    """Take a scan that nobody labels."""
    recorder = Recorder()
    with run_engine() as engine:
        engine.subscribe(recorder)
        engine(points(detector_of(kind, folder), count))
    return recorder


@pytest.mark.parametrize("kind", KINDS)
def test_a_pause_at_a_checkpoint_costs_and_repeats_nothing(
    kind: str, RE: RunEngine, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    detector = detector_of(kind, tmp_path)
    assert interrupted(RE, points(detector, 7, at={3: bps.pause}))
    RE.resume()
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 7)
    check_account(account, 7, "success")
    assert account.announced == 7
    assert [mask.frame.attempt for mask in rows] == [0] * 7
    assert eventually(lambda: line.journals_left() == [])


@pytest.mark.parametrize("kind", KINDS)
def test_points_that_are_taken_again_are_marked_and_the_earlier_ones_kept(
    kind: str, make_line: Callable[..., Line], tmp_path: Path
) -> None:
    sink = HDF5Sink(tmp_path / "masks", arrays=("mask",))
    line = make_line(sink)
    with run_engine() as engine:
        engine.subscribe(line)
        detector = detector_of(kind, tmp_path)
        assert interrupted(engine, points(detector, 9, every=3, at={5: bps.pause}))
        engine.resume()
    line.settle()
    with stored_run(tmp_path / "masks") as stored:
        table, account = stored.table, stored.stop["account"]
        assert table["raw_seq_num"] == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]
        assert table["attempt"] == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
        assert table["plateau"] == table["raw_index"] == list(range(11))
        assert (account["received"], account["announced"], account["retaken"]) == (11, 11, 2)
        assert states(stored) == ["ok", "ok", "ok", "ok"]


def stored_run(folder: Path) -> Any:
    (path,) = folder.glob("*.h5")
    return open_stored(str(path), TiledOptions(), "")


def states(stored: StoredRun, raw: Any = None) -> list[str]:
    """Return how the checks of an audit end: rows, arrays, account, raw run."""
    books = Books(
        str(stored.start["original_run_uid"]),
        stored.raw_stream,
        stored.raw_data_key,
        stored.table,
        stored.lengths,
        stored.stop,
    )
    return [check.state for check in audit(books, raw)]


def test_points_that_are_taken_three_times_have_three_rows(
    RE: RunEngine, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    pauses = {4: bps.pause, 5: bps.pause}
    assert interrupted(RE, points(detector_of("inline", tmp_path), 6, every=6, at=pauses))
    with pytest.raises(RunEngineInterrupted):
        RE.resume()
    RE.resume()
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 15)
    check_account(account, 15, "success")
    attempts = [(mask.frame.seq_num, mask.frame.attempt) for mask in rows]
    assert attempts[:4] == [(n, 0) for n in (1, 2, 3, 4)]
    assert attempts[4:9] == [*((n, 1) for n in (1, 2, 3, 4)), (5, 0)]
    assert attempts[9:] == [*((n, 2) for n in (1, 2, 3, 4)), (5, 1), (6, 0)]
    assert (account.announced, account.retaken) == (15, 9)


@pytest.mark.parametrize(
    ("end", "exit_status"),
    [("abort", "abort"), ("halt", "abort"), ("stop", "success")],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_ended_early_is_closed_as_it_was_ended(
    kind: str,
    end: str,
    exit_status: str,
    RE: RunEngine,
    line: Line,
    sink: MemorySink,
    tmp_path: Path,
) -> None:
    assert interrupted(RE, points(detector_of(kind, tmp_path), 9, at={4: bps.pause}))
    getattr(RE, end)()
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 4)
    check_account(account, 4, exit_status)
    assert account.announced == 4
    assert eventually(lambda: line.journals_left() == [])


@pytest.mark.parametrize(("frames", "announced"), [(5, -1), (6, 6)])
def test_a_run_that_fails_after_it_went_back_balances(
    frames: int, announced: int, RE: RunEngine, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    """Its stop document counts fewer events than were taken."""
    detector = detector_of("inline", tmp_path, frames)
    assert interrupted(RE, points(detector, 9, every=3, at={5: bps.pause}))
    with pytest.raises(DatasetError, match="no frame"):
        RE.resume()
    line.settle()
    rows, account = only(sink)
    check_rows(rows, frames)
    check_account(account, frames, "fail")
    assert account.announced == announced


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_plan_closes_the_run_with_its_reason(
    kind: str, RE: RunEngine, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="shutter"):
        RE(points(detector_of(kind, tmp_path), 9, at={3: broken}))
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 3)
    check_account(account, 3, "fail", "the shutter is stuck")


def test_a_run_without_a_stop_document_is_closed_as_failed_when_it_is_silent(
    line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scan = recorded(5, tmp_path)
    emit(scan.documents[:-1], line)
    line.settle()
    line.clock.now += 599
    line.settle()
    assert sink.accounts == {}
    line.clock.now += 2
    assert eventually(lambda: sink.accounts)
    rows, account = only(sink)
    check_rows(rows, 5)
    check_account(account, 5, "fail", "no document for 600 s")
    assert account.announced == -1
    assert eventually(lambda: line.journals_left() == [])
    emit(scan.documents[-1:], line)  # it was only late
    line.settle()
    assert line.segmentation.unknown == 1
    assert only(sink) == (rows, account)


def test_a_silent_run_whose_end_is_in_the_raw_store_ends_as_the_raw_run_did(
    make_line: Callable[..., Line], sink: MemorySink, tmp_path: Path
) -> None:
    raw = RawRuns()
    line = make_line(sink, raw)
    recorder = Recorder()
    with run_engine() as engine:
        engine.subscribe(recorder)
        with pytest.raises(RuntimeError, match="shutter"):
            engine(points(detector_of("inline", tmp_path), 9, at={8: broken}))
    emit(recorder.documents, raw)
    emit(recorder.documents[:6], line)  # start, descriptor, four events
    line.settle()
    line.clock.now += 601
    assert eventually(lambda: sink.accounts)
    rows, account = only(sink)
    check_rows(rows, 8)
    check_account(account, 8, "fail", "the shutter is stuck")
    assert [mask.frame.refilled for mask in rows] == [""] * 4 + ["tiled"] * 4
    assert (account.announced, account.refilled) == (8, 4)


def test_frames_lost_at_the_end_that_nobody_has_are_rows_marked_as_lost(
    line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scan = recorded(6, tmp_path)
    emit([*scan.documents[:5], scan.documents[-1]], line)
    line.settle()
    rows, account = only(sink)
    assert [mask.status for mask in rows] == ["ok"] * 3 + ["lost"] * 3
    assert (account.received, account.written, account.lost, account.announced) == (6, 3, 3, 6)
    assert account.imbalance == ""
    assert account.exit_status == "success"


@pytest.mark.parametrize("kind", KINDS)
def test_runs_whose_documents_are_interleaved_are_kept_apart(
    kind: str, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scans = [recorded(count, tmp_path, kind) for count in (4, 7, 5)]
    waiting = [list(scan.documents) for scan in scans]
    while any(waiting):
        for documents in waiting:
            emit(documents[:1], line)
            del documents[:1]
    line.settle()
    for scan, count in zip(scans, (4, 7, 5), strict=True):
        check_rows(sink.rows[scan.uid], count)
        check_account(sink.accounts[scan.uid], count, "success")


def test_nested_runs_of_one_plan_are_kept_apart(
    RE: RunEngine, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    first, second = detector_of("inline", tmp_path), detector_of("inline", tmp_path)

    def plan() -> Iterator[Any]:
        yield from keyed(bps.open_run(md={"sample": "a"}), "a")
        yield from keyed(bps.open_run(md={"sample": "b"}), "b")
        for point in range(4):
            yield from keyed(bps.trigger_and_read([first]), "a")
            if point % 2:
                yield from keyed(bps.trigger_and_read([second]), "b")
        yield from keyed(bps.close_run(), "a")
        yield from keyed(bps.close_run(exit_status="fail", reason="odd"), "b")

    RE(plan())
    line.settle()
    by_sample = {info.start["sample"]: uid for uid, info in sink.runs.items()}
    check_rows(sink.rows[by_sample["a"]], 4)
    check_rows(sink.rows[by_sample["b"]], 2)
    check_account(sink.accounts[by_sample["b"]], 2, "fail", "odd")


def test_who_joins_late_and_can_ask_nobody_ignores_that_run_and_labels_the_next(
    line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    missed, whole = (recorded(5, tmp_path) for _ in range(2))
    emit(missed.documents[3:], line)
    emit(whole.documents, line)
    line.settle()
    assert line.segmentation.unknown == 5  # four events and the stop document
    assert list(sink.runs) == [whole.uid]
    check_rows(sink.rows[whole.uid], 5)


@pytest.mark.parametrize("missed", [1, 2, 4])
def test_who_joins_late_and_has_a_raw_store_labels_the_whole_run(
    missed: int, make_line: Callable[..., Line], sink: MemorySink, tmp_path: Path
) -> None:
    scan, raw = recorded(5, tmp_path), RawRuns()
    emit(scan.documents, raw)
    line = make_line(sink, raw)
    emit(scan.documents[missed:], line)
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 5)
    check_account(account, 5, "success")
    lost = max(0, missed - 2)
    assert [mask.frame.refilled for mask in rows] == ["tiled"] * lost + [""] * (5 - lost)
    assert line.segmentation.unknown == 0


def test_a_start_document_that_comes_twice_while_its_run_is_open_is_left_out(
    line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scan = recorded(5, tmp_path)
    emit([*scan.documents[:4], scan.documents[0], *scan.documents[4:]], line)
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 5)
    check_account(account, 5, "success")
    assert line.inbox.duplicates == 1


@pytest.mark.parametrize("repeat", [2, 3])
def test_a_document_that_comes_twice_is_counted_once(
    repeat: int, line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scan = recorded(5, tmp_path)
    doubled: list[Named] = [each for each in scan.documents for _ in range(repeat)]
    emit(doubled, line)
    line.settle()
    rows, account = only(sink)
    check_rows(rows, 5)
    check_account(account, 5, "success")


def test_a_run_that_comes_again_as_a_whole_is_labelled_beside_the_first(
    make_line: Callable[..., Line], tmp_path: Path
) -> None:
    scan = recorded(5, tmp_path)
    line = make_line(HDF5Sink(tmp_path / "masks", arrays=("mask",)))
    emit(scan.documents, line)
    line.settle()
    emit(scan.documents, line)
    line.settle()
    paths = list((tmp_path / "masks").glob("*.h5"))
    assert len(paths) == 2
    for path in paths:
        with open_stored(str(path), TiledOptions(), "") as stored:
            assert stored.start["original_run_uid"] == scan.uid
            assert stored.table["plateau"] == [0, 1, 2, 3, 4]
            assert stored.stop["account"]["received"] == 5


def test_stop_documents_of_unknown_runs_and_second_ones_change_nothing(
    line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scan, other = (recorded(3, tmp_path) for _ in range(2))
    emit(other.documents[-1:], line)
    emit(scan.documents, line)
    line.settle()
    before = only(sink)
    changed = {**scan.documents[-1][1], "exit_status": "fail", "uid": "another"}
    emit([scan.documents[-1], ("stop", changed)], line)
    emit(other.documents, line)
    line.settle()
    assert (sink.rows[scan.uid], sink.accounts[scan.uid]) == before
    check_account(sink.accounts[scan.uid], 3, "success")
    check_account(sink.accounts[other.uid], 3, "success")


def test_a_run_of_which_only_the_start_came_is_closed_as_failed_and_empty(
    line: Line, sink: MemorySink, tmp_path: Path
) -> None:
    scan = recorded(3, tmp_path)
    emit(scan.documents[:1], line)
    line.settle()
    line.clock.now += 601
    assert eventually(lambda: sink.accounts)
    rows, account = only(sink)
    assert rows == []
    check_account(account, 0, "fail", "silent")


def test_runs_that_are_open_when_the_node_is_closed_are_closed_as_failed(
    make_line: Callable[..., Line], sink: MemorySink, tmp_path: Path
) -> None:
    line = make_line(sink)
    scan = recorded(3, tmp_path)
    emit(scan.documents[:-1], line)
    line.close()
    rows, account = only(sink)
    check_rows(rows, 3)
    check_account(account, 3, "fail", "closed before the stop document came")
