"""Documents on their way from a source's thread to the loop."""

import contextlib
import json
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from callbacks_targets import documents, mark_of
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.journals.record_log import RecordLog
from ptychoseg_callbacks.loop import Close, Drain, Received, Suspend
from ptychoseg_callbacks.queueing.admission import MOST_IDS, Admission
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.queueing.waiting import MOST_DOCUMENTS, OverloadOptions

from ptychoseg_stream.node.spool import SpoolOptions

IMAGE = 16 * 16 * 2
Make = Callable[..., Inbox]


@pytest.fixture
def options(tmp_path: Path) -> SpoolOptions:
    return SpoolOptions(str(tmp_path / "spool"), min_free_bytes=0)


@pytest.fixture
def make(options: SpoolOptions) -> Iterator[Make]:
    """Make an inbox with journals in the same folder each time."""
    made: list[Inbox] = []

    def make(overload: OverloadOptions | None = None, raw: Any = None, **more: Any) -> Inbox:
        made.append(Inbox(Journals(options), overload, raw, **more))
        return made[-1]

    yield make
    for inbox in made:
        inbox.close()


def feed(inbox: Inbox, docs: Sequence[tuple[str, Any]], **more: Any) -> None:
    for name, doc in docs:
        inbox.put(name, doc, **more)


def taken(inbox: Inbox) -> list[Received]:
    found: list[Received] = []
    while isinstance(message := inbox.take(0.0), Received):
        found.append(message)
    assert message is None
    return found


def marks(received: Sequence[Received]) -> list[Any]:
    return [mark_of(each.doc) for each in received if each.name == "event"]


def finish(received: Sequence[Received]) -> None:
    for journal in {each.journal for each in received if each.journal is not None}:
        journal.finish()


def test_documents_come_out_as_they_went_in(make: Make) -> None:
    inbox = make(clock=lambda: 42.0)
    docs = documents("a", 3)
    assert [inbox.put(name, doc) for name, doc in docs] == [1, 2, 3, 4, 5, 6]
    assert inbox.waiting == 6
    received = taken(inbox)
    assert [each.name for each in received] == [name for name, _ in docs]
    assert [each.number for each in received] == [1, 2, 3, 4, 5, 6]
    assert {each.arrived for each in received} == {42.0}
    assert marks(received) == [0, 1, 2]
    assert len({each.journal for each in received}) == 1
    assert received[0].journal is not None
    assert (received[0].journal.raw, received[0].journal.resumed) == ("a", False)
    assert not any(each.teacher_only for each in received)
    assert inbox.waiting == 0


def test_messages_for_the_loop_keep_their_place_among_documents() -> None:
    inbox = Inbox()
    inbox.put("start", {"uid": "a"})
    inbox.tell(Drain(1, 2.0))
    inbox.put("stop", {"uid": "s", "run_start": "a"})
    inbox.tell(Close(3.0))
    kinds = [type(inbox.take(0.0)) for _ in range(5)]
    assert kinds == [Received, Drain, Received, Close, type(None)]


def test_documents_beyond_the_memory_limit_wait_on_disk_and_none_is_missing(make: Make) -> None:
    inbox = make(OverloadOptions(memory_bytes=5 * IMAGE))
    feed(inbox, documents("a", 200))
    held, size = inbox.memory
    assert size <= 5 * IMAGE
    assert held < 10
    assert inbox.waiting == 203
    assert len(inbox._waiting._queue) < 15  # what is on disk is one entry, not one per document
    received = taken(inbox)
    assert marks(received) == list(range(200))
    assert [each.number for each in received] == list(range(1, 204))


def test_memory_stays_bounded_while_documents_come_and_go(make: Make) -> None:
    inbox = make(OverloadOptions(memory_bytes=5 * IMAGE))
    found: list[Any] = []
    for step, (name, doc) in enumerate(documents("a", 300)):
        inbox.put(name, doc)
        if step % 3 == 0 and isinstance(message := inbox.take(0.0), Received):
            found.append(message)
        assert inbox.memory[1] <= 5 * IMAGE
        assert inbox.memory[0] <= 10
    assert marks([*found, *taken(inbox)]) == list(range(300))


def test_interleaved_runs_that_wait_on_disk_stay_in_order(make: Make) -> None:
    inbox = make(OverloadOptions(memory_bytes=1))
    pairs = list(zip(documents("a", 20), documents("b", 20, first=100), strict=True))
    feed(inbox, [doc for pair in pairs for doc in pair])
    received = taken(inbox)
    assert [each.number for each in received] == list(range(1, 47))
    runs = [[r for r in received if r.journal and r.journal.raw == raw] for raw in "ab"]
    assert marks(runs[0]) == list(range(20))
    assert marks(runs[1]) == list(range(100, 120))


def test_interleaved_runs_that_wait_on_disk_take_little_memory(make: Make) -> None:
    inbox = make(OverloadOptions(memory_bytes=1))
    for raw in "ab":
        feed(inbox, documents(raw, 0)[:2])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n in range(3000):
        for raw in "ab":
            inbox.put("event", {"uid": f"{raw}{n}", "descriptor": f"{raw}-d", "data": {}})
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ids = sys.getsizeof(inbox._intake._admission._seen) + 6000 * 32
    assert after - before - ids < 6000 * 40
    received = taken(inbox)
    assert len(received) == 6004
    assert [each.number for each in received] == list(range(1, 6005))
    assert [each.doc["uid"] for each in received[-4:]] == ["a2998", "b2998", "a2999", "b2999"]


def test_number_of_documents_in_memory_is_bounded_too(make: Make) -> None:
    inbox = make()
    feed(inbox, documents("a", 1)[:2])
    event = {"descriptor": "a-d", "data": {"x": 1.0}}
    for n in range(MOST_DOCUMENTS + 50):
        inbox.put("event", {**event, "uid": str(n)})
    assert inbox.memory[0] == MOST_DOCUMENTS
    assert len(taken(inbox)) == MOST_DOCUMENTS + 52


def test_without_a_journal_images_beyond_the_limit_become_notes() -> None:
    inbox = Inbox(overload=OverloadOptions(memory_bytes=4 * IMAGE))
    feed(inbox, documents("a", 10))
    found = marks(taken(inbox))
    assert found[:4] == [0, 1, 2, 3]
    assert all("memory limit" in reason for reason in found[4:])
    assert all("spool.folder" in reason for reason in found[4:])


def test_disk_without_room_costs_no_document(
    options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(Journals(SpoolOptions(options.folder, min_free_bytes=1 << 62)))
    feed(inbox, documents("a", 5))
    received = taken(inbox)
    assert marks(received) == [0, 1, 2, 3, 4]
    assert {each.journal for each in received} == {None}
    assert len(caplog.records) == 1


def test_put_never_waits_where_the_profile_does_not_say_so(make: Make) -> None:
    inbox = make(OverloadOptions(memory_bytes=1))
    feed(inbox, documents("a", 500))  # nobody takes anything, and this returns
    assert inbox.waiting == 503


def test_source_waits_for_the_loop_where_the_profile_says_so(make: Make) -> None:
    inbox = make(OverloadOptions("wait", documents=3))
    source = threading.Thread(target=feed, args=(inbox, documents("a", 50)))
    source.start()
    found: list[Received] = []
    while len(found) < 53:
        assert inbox._waiting._images <= 3
        if isinstance(message := inbox.take(1.0), Received):
            found.append(message)
    source.join(20)
    assert marks(found) == list(range(50))


def test_source_that_waits_is_let_go_when_what_waits_cannot_be_read(make: Make) -> None:
    left = make()
    feed(left, documents("a", 5)[:-1])
    left.close()
    inbox = make(OverloadOptions("wait", documents=2))
    (journal,) = inbox._intake.journals()
    log = journal.folder / "documents.log"
    log.write_bytes(b"\x00" * log.stat().st_size)
    source = threading.Thread(target=feed, args=(inbox, documents("b", 1)), daemon=True)
    source.start()
    while not inbox._waiting._changed._waiters:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)
    assert inbox.take(0.0) is None
    source.join(20)
    assert not source.is_alive()
    assert inbox.lost == 7


def test_source_that_waits_is_let_go_at_the_end(make: Make) -> None:
    for end in (lambda inbox: inbox.tell(Close(1.0)), lambda inbox: inbox.suspend(0.0)):
        inbox = make(OverloadOptions("wait", documents=1))
        source = threading.Thread(target=feed, args=(inbox, documents("a", 10)))
        source.start()
        while inbox.waiting < 3:
            threading.Event().wait(0.001)
        end(inbox)
        source.join(20)
        assert not source.is_alive()


def test_cheaper_path_is_taken_while_too_much_waits(make: Make) -> None:
    inbox = make(OverloadOptions("teacher-only", documents=8))
    feed(inbox, documents("a", 20))
    cheap = [each.teacher_only for each in taken(inbox) if each.name == "event"]
    assert cheap == [True] * 18 + [False] * 2  # until fewer than a quarter of 8 wait behind it
    feed(inbox, documents("b", 8))
    assert not any(each.teacher_only for each in taken(inbox))


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
def test_cheaper_path_is_left_again_however_little_may_wait(make: Make, most: int) -> None:
    inbox = make(OverloadOptions("teacher-only", documents=most))
    feed(inbox, documents("a", 20))
    cheap = [each.teacher_only for each in taken(inbox) if each.name == "event"]
    assert cheap[0]
    assert not cheap[-1]
    assert cheap == sorted(cheap, reverse=True)


def test_document_that_comes_again_is_left_out(make: Make) -> None:
    inbox = make()
    docs: list[tuple[str, Any]] = documents("a", 3)[:-1]
    docs += [
        ("resource", {"uid": "r", "run_start": "a"}),
        ("datum", {"datum_id": "r/1", "resource": "r"}),
        ("datum_page", {"datum_id": ["r/2", "r/3"], "resource": "r"}),
        ("stream_resource", {"uid": "sr", "run_start": "a"}),
        ("stream_datum", {"uid": "sr/1", "descriptor": "a-d", "stream_resource": "sr"}),
        ("event_page", {"uid": ["p1", "p2"], "descriptor": "a-d", "data": {}}),
    ]
    feed(inbox, docs)
    feed(inbox, docs[1:])
    feed(inbox, [("event_page", {"uid": ["a-e0"], "descriptor": "a-d", "data": {}})])
    assert len(taken(inbox)) == len(docs)
    assert inbox.duplicates == len(docs)


def test_start_of_an_open_run_that_comes_again_is_left_out_with_one_line(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = make()
    docs = documents("a", 2)
    feed(inbox, docs[:3])
    feed(inbox, docs[:1])
    feed(inbox, docs[3:])
    received = taken(inbox)
    assert [each.name for each in received] == ["start", "descriptor", "event", "event", "stop"]
    assert caplog.text.count("came again") == 1


def test_run_that_was_finished_is_processed_anew_when_it_is_replayed(make: Make) -> None:
    inbox = make()
    derived = []
    for _ in range(2):
        feed(inbox, documents("a", 3))
        received = taken(inbox)
        assert marks(received) == [0, 1, 2]
        assert received[0].journal is not None
        derived.append(received[0].journal.derived)
        finish(received)
    assert derived[0] != derived[1]


def test_run_that_was_finished_is_left_out_when_a_source_delivers_it_again(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = make()
    feed(inbox, documents("a", 3), redelivered=True)
    finish(taken(inbox))
    inbox.close()
    with caplog.at_level("INFO"):
        again = make()
        feed(again, [*documents("a", 3), *documents("b", 1)], redelivered=True)
    received = taken(again)
    assert received[0].doc["uid"] == "b"
    assert len(received) == 4
    assert again.duplicates == 6
    assert caplog.text.count("was processed before") == 1


def test_next_process_goes_on_with_what_the_last_one_left(make: Make) -> None:
    first = make()
    docs = documents("a", 10)
    feed(first, docs[:8])
    for _ in range(4):
        first.take(0.0)
    first.close()

    second = make(OverloadOptions(memory_bytes=1))
    assert (second.resumed, second.waiting) == (1, 8)
    feed(second, docs[5:], redelivered=True)  # three of them came before
    received = taken(second)
    assert [each.name for each in received] == [name for name, _ in docs]
    assert marks(received) == list(range(10))
    assert [each.number for each in received[:8]] == [0] * 8
    assert [each.number for each in received[8:]] == [4, 5, 6, 7, 8]
    assert all(each.journal is not None and each.journal.resumed for each in received)
    second.close()

    third = make()
    assert marks(taken(third)) == list(range(10))


def test_run_whose_start_was_not_written_down_is_no_run(
    make: Make, options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    empty = Journals(options).create("a")
    assert empty is not None
    empty.release()
    broken = Journals(options).create("b")
    assert broken is not None
    broken.append("event", {"uid": "e"}, 0.0, 0)
    broken.release()
    inbox = make()
    assert (inbox.waiting, inbox.resumed) == (0, 0)
    assert not empty.folder.exists()
    assert broken.folder.exists()
    assert str(broken.folder) in caplog.text
    feed(inbox, documents("a", 1), redelivered=True)
    assert len(taken(inbox)) == 4


class Archive:
    """A store of raw runs that knows one run."""

    def __init__(self, docs: Sequence[tuple[str, Any]]) -> None:
        self.docs = docs
        self.asked: list[str] = []

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        self.asked.append(uid)
        known = [doc["uid"] for name, doc in self.docs if name in ("start", "descriptor")]
        return self.docs[0][1] if uid in known else None

    def notes_of(self, run_uid: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [each for each in self.docs if each[0] == "descriptor"]

    def stop_of(self, run_uid: str) -> None:
        return None

    def read(self, *_: Any) -> None:
        return None

    def count(self, *_: Any) -> int:
        return -1


def test_late_joiner_gets_the_beginning_from_the_store(make: Make) -> None:
    docs = documents("a", 5)
    archive = Archive(docs)
    inbox = make(raw=archive)
    feed(inbox, docs[4:])
    received = taken(inbox)
    assert [each.name for each in received] == ["start", "descriptor", *["event"] * 3, "stop"]
    assert marks(received) == [2, 3, 4]
    assert archive.asked == ["a-d"]


def test_store_is_asked_once_for_what_it_does_not_know(make: Make) -> None:
    archive = Archive(documents("a", 1))
    inbox = make(raw=archive)
    feed(inbox, documents("b", 5)[1:])
    assert [each.name for each in taken(inbox)] == ["descriptor", *["event"] * 5, "stop"]
    assert archive.asked == ["b", "b-d"]


def test_missed_descriptor_of_an_open_run_comes_from_the_store(make: Make) -> None:
    docs = documents("a", 2)
    inbox = make(raw=Archive(docs))
    feed(inbox, [docs[0], *docs[2:]])
    assert [each.name for each in taken(inbox)] == [name for name, _ in docs]


def test_straggler_of_a_finished_run_does_not_begin_it_again(make: Make) -> None:
    docs = documents("a", 2)
    inbox = make(raw=Archive(docs))
    feed(inbox, docs)
    finish(taken(inbox))
    feed(inbox, [("event", {**docs[2][1], "uid": "late", "descriptor": "other"})])
    feed(inbox, [("descriptor", {**docs[1][1], "uid": "late too"})])
    inbox.close()
    later = make(raw=Archive(docs))
    feed(later, docs[3:])
    assert [each.name for each in taken(inbox)] == ["event", "descriptor"]
    assert [each.name for each in taken(later)] == ["event", "stop"]
    assert len(list((inbox._journals._options.runs).glob("*-*"))) == 0  # type: ignore[union-attr]


HOSTILE: list[tuple[Any, Any]] = [
    ("start", {}),
    ("start", {"uid": None}),
    ("start", {"uid": ["a"]}),
    ("start", []),
    ("start", None),
    ("descriptor", {"uid": {}, "run_start": {}}),
    ("event", "text"),
    ("event", {"descriptor": ["x"], "data": None}),
    ("event", {"descriptor": "a-d", "uid": [[1], {}], "data": 3}),
    ("event_page", {"descriptor": "a-d", "uid": 5, "data": {"x": [object()]}}),
    ("datum_page", {"resource": "r", "datum_id": {"a": 1}}),
    ("stop", {"run_start": 7}),
    ("nonsense", {"a": 1}),
    (None, {}),
    (["start"], {}),
]


@pytest.mark.parametrize("at", range(len(HOSTILE)))
def test_malformed_document_is_passed_on_and_the_next_one_is_taken(make: Make, at: int) -> None:
    inbox = make()
    docs = documents("a", 3)
    feed(inbox, docs[:3])
    number = inbox.put(*HOSTILE[at])
    feed(inbox, docs[3:])
    received = taken(inbox)
    assert number == 4
    assert len(received) in (7, 8)
    assert marks([each for each in received if each.number != number]) == [0, 1, 2]


def test_document_nested_beyond_all_measure_is_passed_on(make: Make) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    inbox = make()
    feed(inbox, documents("a", 1)[:2])
    inbox.put("event", {"uid": "e", "descriptor": "a-d", "data": {}, "deep": deep})
    assert [each.name for each in taken(inbox)] == ["start", "descriptor", "event"]


def test_ids_that_are_remembered_are_bounded() -> None:
    admission = Admission()
    list(admission.admit("start", {"uid": "a"}))
    list(admission.admit("descriptor", {"uid": "d", "run_start": "a"}))
    page = {"descriptor": "d", "data": {}}
    for block in range(5):
        rows = [f"{block}-{n}" for n in range(MOST_IDS // 4)]
        list(admission.admit("event_page", {**page, "uid": rows}))
    assert len(admission._seen) == MOST_IDS
    assert list(admission.admit("event", {"descriptor": "d", "uid": "4-7", "data": {}})) == []


def test_runs_that_are_remembered_are_bounded() -> None:
    admission = Admission()
    for n in range(200):
        list(admission.admit("start", {"uid": f"run {n}"}))
    assert len(admission._runs) == 64
    last = list(admission.admit("stop", {"uid": "s", "run_start": "run 199"}))
    assert len(last) == 1


def test_suspend_ends_after_what_waits() -> None:
    inbox = Inbox()
    feed(inbox, documents("a", 3))
    inbox.suspend(60.0)
    kinds = [type(inbox.take(5.0)) for _ in range(7)]
    assert kinds == [Received] * 6 + [Suspend]


def test_suspend_does_not_wait_longer_than_it_was_told() -> None:
    now = [0.0]
    inbox = Inbox(monotonic=lambda: now[0])
    feed(inbox, documents("a", 3))
    inbox.suspend(5.0)
    assert isinstance(inbox.take(0.0), Received)
    now[0] = 6.0
    assert isinstance(inbox.take(0.0), Suspend)


def test_what_the_sender_may_forget_is_what_is_written_down(
    make: Make, options: SpoolOptions
) -> None:
    inbox = make()
    for number, (name, doc) in enumerate(documents("a", 3), 1):
        inbox.put(name, doc, sender=number)
        assert inbox.safe == inbox.last_sender == number

    full = Inbox(Journals(SpoolOptions(options.folder, min_free_bytes=1 << 62)), resume=False)
    for number, (name, doc) in enumerate(documents("b", 3), 1):
        full.put(name, doc, sender=number)
    safe = []
    while full.take(0.0) is not None:
        safe.append(full.safe)
    assert safe == [0, 1, 2, 3, 4, 5]  # what is being processed would be lost
    assert full.safe == full.last_sender == 6


def test_document_that_cannot_be_read_while_it_waits_costs_no_other(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = make(OverloadOptions(memory_bytes=1))
    feed(inbox, documents("a", 8))
    first = inbox.take(0.0)
    assert isinstance(first, Received)
    assert first.journal is not None
    log = first.journal.folder / "documents.log"
    data = bytearray(log.read_bytes())
    for spot in (900, 2200):
        data[spot] ^= 1
    log.write_bytes(data)
    received = [each for each in (inbox.take(0.0) for _ in range(11)) if isinstance(each, Received)]
    assert len(received) == 8
    assert len(marks(received)) == 6
    assert received[-1].name == "stop"
    assert [each.number for each in received] == sorted(each.number for each in received)
    assert received[-1].number == 11
    assert (inbox.lost, inbox.waiting) == (2, 0)
    assert inbox._waiting._images == 0
    assert caplog.text.count("cannot be read") == 1


def test_journal_that_cannot_be_read_costs_what_it_holds_and_says_so(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = make(OverloadOptions(memory_bytes=1))
    feed(inbox, documents("a", 5))
    received = inbox.take(0.0)
    assert isinstance(received, Received)
    assert received.journal is not None
    log = received.journal.folder / "documents.log"
    log.write_bytes(b"\x00" * log.stat().st_size)
    feed(inbox, documents("b", 1))
    found = [inbox.take(0.0) for _ in range(20)]
    assert inbox.lost > 0
    assert "cannot be read" in caplog.text
    runs = [each.journal.raw for each in found if isinstance(each, Received) and each.journal]
    assert runs == ["b"] * 4
    assert inbox.waiting == 0


def test_images_of_any_dtype_come_back_from_disk_as_they_were(make: Make) -> None:
    inbox = make(OverloadOptions(memory_bytes=1))
    feed(inbox, documents("a", 1)[:2])
    images = [
        np.arange(12, dtype=dtype).reshape(3, 4) for dtype in ("u1", "<u2", ">i4", "f4", "f8")
    ]
    for n, image in enumerate(images):
        inbox.put("event", {"uid": str(n), "descriptor": "a-d", "data": {"image": image}})
    found = [each.doc["data"]["image"] for each in taken(inbox) if each.name == "event"]
    for image, back in zip(images, found, strict=True):
        assert back.dtype == image.dtype
        np.testing.assert_array_equal(back, image)


def removed_files() -> list[str]:
    """Return the files that this process holds open although they were removed."""
    names: list[str] = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(each.readlink()))
    return [name for name in names if name.endswith("documents.log (deleted)")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_the_file_of_a_finished_journal_is_given_back_as_soon_as_nothing_waits(make: Make) -> None:
    inbox = make()
    for run in range(3):
        feed(inbox, documents(f"run {run}", 3))
        finish(taken(inbox))
    inbox.put("event", {"descriptor": "none"})
    (late,) = taken(inbox)
    assert late.journal is None
    assert removed_files() == []


def left_open(make: Make, raw: str = "a", frames: int = 5) -> None:
    """Leave a run without its stop document to the next process."""
    inbox = make()
    feed(inbox, documents(raw, frames)[:-1])
    inbox.close()


def test_documents_that_come_before_earlier_runs_were_read_are_put_behind_them(make: Make) -> None:
    left_open(make)
    inbox = make(later=True)
    docs = documents("a", 8)
    feed(inbox, docs[5:], sender=3, redelivered=True)  # two of them came before
    feed(inbox, documents("b", 2))
    inbox.tell(Drain(1, 2.0))
    assert (inbox.waiting, inbox.safe, inbox.number) == (11, 3, 11)
    assert inbox.take(0.0) is None
    inbox.recover()
    received = [inbox.take(0.0) for _ in range(17)]
    assert isinstance(received.pop(), Drain)
    found = [each for each in received if isinstance(each, Received) and each.journal]
    assert [each.journal.raw for each in found if each.journal] == ["a"] * 11 + ["b"] * 5
    assert marks(found) == [*range(8), 0, 1]
    assert [each.number for each in found] == [0] * 7 + [*range(3, 12)]
    assert inbox.waiting == 0
    finish(found)
    inbox.close()
    assert list(inbox._journals._options.runs.glob("*-*")) == []  # type: ignore[union-attr]


@pytest.mark.parametrize("message", [Close(3.0), Drain(1, 2.0)])
def test_messages_that_come_while_earlier_runs_are_read_are_put_behind_those(
    make: Make, message: Close | Drain
) -> None:
    left_open(make)
    inbox = make(later=True)
    inbox.tell(message)  # before any document came
    assert inbox.take(0.0) is None
    inbox.recover()
    found = [inbox.take(0.0) for _ in range(8)]
    assert found.pop() == message
    assert [type(each) for each in found] == [Received] * 7


def test_inbox_that_is_closed_before_earlier_runs_were_read_lets_go_who_waits(make: Make) -> None:
    left_open(make)
    inbox = make(OverloadOptions("wait", documents=1), later=True)
    inbox.tell(Close(3.0))
    feed(inbox, documents("b", 5))  # nobody takes anything, and this returns
    inbox.close()
    received = taken(make())
    assert sorted(marks(received)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_early_documents_of_a_process_that_died_are_taken_by_the_next_one(make: Make) -> None:
    left_open(make)
    dead = make(later=True)
    feed(dead, documents("a", 8)[5:])
    feed(dead, documents("b", 2))
    dead.close()
    inbox = make()
    received = taken(inbox)
    assert marks(received) == [*range(8), 0, 1]
    assert {each.number for each in received} == {0}
    finish(received)
    inbox.close()
    assert taken(make()) == []


def test_early_documents_that_cannot_all_be_read_are_left_to_the_next_process(
    make: Make, options: SpoolOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = make(later=True)
    feed(dead, documents("b", 6))
    dead.close()
    whole = RecordLog._read

    def broken(log: RecordLog, length: int, offset: int) -> bytes:
        if offset > 1500:
            raise OSError(5, "Input/output error")
        return whole(log, length, offset)

    with monkeypatch.context() as disk:
        disk.setattr(RecordLog, "_read", broken)
        half = make()
        assert 0 < half.waiting < 9
        half.close()
    assert marks(taken(make())) == list(range(6))
    folders = list(options.runs.glob("*-*"))
    assert [json.loads((each / "run.json").read_text())["raw"] for each in folders] == ["b"]


def test_documents_may_come_while_earlier_runs_are_read(make: Make) -> None:
    left_open(make, frames=200)
    inbox = make(OverloadOptions(memory_bytes=5 * IMAGE), later=True)
    source = threading.Thread(target=feed, args=(inbox, documents("a", 400)))
    source.start()
    inbox.recover()
    source.join(30)
    received = taken(inbox)
    assert marks(received) == list(range(400))
    assert received[-1].name == "stop"
    assert inbox.lost == 0


def test_who_puts_in_early_waits_where_the_disk_is_full(make: Make, options: SpoolOptions) -> None:
    left_open(make)
    inbox = Inbox(Journals(SpoolOptions(options.folder, min_free_bytes=1 << 62)), later=True)
    source = threading.Thread(target=feed, args=(inbox, documents("b", 3)))
    source.start()
    inbox.recover()
    source.join(30)
    received = taken(inbox)
    inbox.close()
    assert marks(received) == [*range(5), 0, 1, 2]


def left_aside(make: Make, options: SpoolOptions) -> Path:
    """Leave a run without its stop document, which nobody is to go on with."""
    left_open(make)
    (folder,) = options.runs.glob("*-*")
    (folder / "attempts").write_text("3")
    return folder


def test_what_comes_of_a_run_that_was_left_aside_waits_on_disk_until_it_is_tried_again(
    make: Make, options: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    folder = left_aside(make, options)
    docs = documents("a", 8)
    inbox = make(raw=Archive(docs))
    feed(inbox, docs[7:-1], redelivered=True)
    assert (inbox.kept, inbox.waiting, inbox.open_runs, inbox.memory) == (3, 0, [], (0, 0))
    feed(inbox, [*docs, *docs, *documents("b", 2)], redelivered=True)
    for number, (name, doc) in enumerate(documents("a", 9)[-2:-1], 1):  # behind its stop document
        inbox.put(name, doc, sender=number, redelivered=True)
    assert inbox.safe == 1
    assert {each.journal.raw for each in taken(inbox) if each.journal} == {"b"}
    assert (inbox.kept, inbox.resumed, inbox.lost) == (5, 0, 0)
    assert inbox.duplicates == 10 + 11
    assert caplog.text.count("run a is not processed") == 1
    assert f"Its 11 documents wait in {folder}" in caplog.text
    inbox.close()
    assert caplog.text.count("run a is not processed") == 2
    assert f"Its 12 documents wait in {folder}" in caplog.text
    assert (folder / "attempts").read_text() == "3"

    (folder / "attempts").unlink()
    again = make()
    assert again.open_runs[0] == "a"
    received = [each for each in taken(again) if each.journal and each.journal.raw == "a"]
    assert sorted(marks(received)) == list(range(9))
    assert sorted(each.name for each in received) == sorted(n for n, _ in documents("a", 9))


def test_what_comes_of_a_run_that_could_not_be_opened_waits_for_the_next_attempt(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = make()
    docs = documents("a", 5)
    feed(inbox, docs[:3])
    received = inbox.take(0.0)
    assert isinstance(received, Received)
    assert received.journal is not None
    received.journal.refuse()
    feed(inbox, docs[3:], redelivered=True)
    assert len(taken(inbox)) == 2  # those that waited before: they are on disk, too
    assert (inbox.kept, inbox.open_runs, inbox.waiting) == (5, [], 0)
    assert caplog.text.count("Its 8 documents wait") == 1
    inbox.close()
    assert caplog.text.count("Its 8 documents wait") == 1

    again = make()
    assert (again.resumed, again.open_runs) == (1, ["a"])
    received = again.take(0.0)
    assert isinstance(received, Received)
    assert received.journal is not None
    received.journal.refuse()  # gone on with in vain
    assert len(taken(again)) == 7
    assert not (received.journal.folder / "attempts.at").exists()
    again.close()
    assert (received.journal.folder / "attempts").read_text() == "2 0"
    assert marks(taken(make())) == list(range(5))


@pytest.mark.parametrize("redelivered", [True, False])
def test_run_that_was_left_aside_whole_is_not_begun_anew_when_it_is_replayed(
    make: Make, options: SpoolOptions, redelivered: bool
) -> None:
    folder = left_aside(make, options)
    for _ in range(2):
        inbox = make()
        feed(inbox, documents("a", 5), redelivered=redelivered)
        assert inbox.take(0.0) is None
        inbox.close()
    assert (inbox.kept, inbox.duplicates) == (0, 8)
    assert [*options.runs.glob("*-*")] == [folder]


def test_run_whose_journal_cannot_be_read_is_left_out_where_it_was_left_aside(
    make: Make, options: SpoolOptions
) -> None:
    folder = left_aside(make, options)
    log = folder / "documents.log"
    whole = RecordLog(log)
    second = whole.read(0)[1]
    before = log.read_bytes()[second:]  # without its start document
    log.write_bytes(before)
    inbox = make()
    feed(inbox, [*documents("a", 8), *documents("b", 2)], redelivered=True)
    assert {each.journal.raw for each in taken(inbox) if each.journal} == {"b"}
    assert log.read_bytes() == before


def test_run_that_is_gone_on_with_is_to_blame_until_another_one_is_worked_on(
    make: Make, options: SpoolOptions
) -> None:
    for raw in "ab":
        left_open(make, raw, 1)
    inbox = make()

    def blamed() -> list[str]:
        found = [
            json.loads((p.parent / "run.json").read_text())
            for p in options.runs.glob("*/attempts.at")
        ]
        return [each["raw"] for each in found]

    assert blamed() == []
    order: list[list[str]] = []
    for _ in range(6):
        inbox.take(0.0)
        order.append(blamed())
    first, second = order[0], order[-1]
    assert order == [first] * 3 + [second] * 3
    assert sorted([*first, *second]) == ["a", "b"]
    inbox.take(0.0)
    assert blamed() == second  # its last frames are labelled now
    feed(inbox, documents("c", 1))
    inbox.take(0.0)
    assert blamed() == []
    inbox.close()
    assert blamed() == []


def test_no_run_is_to_blame_when_a_node_is_killed_that_has_nothing_to_do(
    make: Make, options: SpoolOptions
) -> None:
    left_open(make)
    inbox = make()
    assert len(taken(inbox)) == 7  # nothing was taken for the first time; `flush` follows
    assert [*options.runs.glob("*/attempts.at")]
    assert inbox.take(0.0) is None
    assert not [*options.runs.glob("*/attempts*")]


class SlowArchive(Archive):
    """Answers when it is let."""

    def __init__(self, docs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(docs)
        self.is_asked, self.answers = threading.Event(), threading.Event()

    def start_of(self, uid: str) -> Mapping[str, Any] | None:
        self.is_asked.set()
        assert self.answers.wait(30)
        return super().start_of(uid)


def test_nobody_else_waits_for_the_answer_of_the_store(make: Make) -> None:
    docs = documents("a", 3)
    archive = SlowArchive(docs)
    inbox = make(raw=archive)
    feed(inbox, documents("b", 1)[:3])
    source = threading.Thread(target=feed, args=(inbox, docs[2:]))
    source.start()
    assert archive.is_asked.wait(30)
    assert inbox.open_runs == ["b"]  # returns
    assert len(taken(inbox)) == 3
    archive.answers.set()
    source.join(30)
    assert [each.name for each in taken(inbox)] == [name for name, _ in docs]
