"""Runs the hostile corpus through every way in: see `hostile` for what must hold."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hostile import CASES, cases
from hostile_support import Case, Stage, bounded_memory, good_run
from hostile_theatre import (
    LIMIT,
    Port,
    ResumableSink,
    ScriptedSource,
    Theatre,
    by_restart,
    by_run_engine,
    by_source,
)
from ptychoseg_callbacks.documents import encode
from ptychoseg_callbacks.ingress import Ingress
from ptychoseg_callbacks.source import Callback
from ptychoseg_callbacks.workers.thread import ThreadWorker

from ptychoseg_stream.errors import ProfileError
from ptychoseg_stream.profile import load_profile
from ptychoseg_stream.sources.messages import Messages
from ptychoseg_stream.sources.recorded.document_writer import DocumentWriter
from ptychoseg_stream.sources.recorded.replay import open_replay

MOST_MEMORY = 512 << 20
WAYS = (by_run_engine, by_source, by_restart)
SLOW = pytest.mark.slow


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    theatre = Theatre(tmp_path)
    assert theatre.watch.touched() == []
    yield theatre
    theatre.watch.close()


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing takes much memory, nor tries to: that would be a MemoryError, logged by a guard."""
    with bounded_memory() as memory:
        yield
    callspec = getattr(request.node, "callspec", None)
    case: Case | None = callspec and callspec.params.get("case")
    assert memory.peak < (case.memory if case else MOST_MEMORY)
    assert "MemoryError" not in caplog.text


def test_there_are_at_least_sixty_cases_and_no_two_have_one_name() -> None:
    names = [(case.group, case.name) for case in CASES]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
    assert len({group for group, _ in names}) == 9


@pytest.mark.parametrize(
    ("case", "way"),
    [
        pytest.param(
            case, way, id=f"{case.name}, {way.__name__}", marks=() if way is by_source else SLOW
        )
        for case in cases("documents", "frames", "files")
        for way in (WAYS if case.group != "files" else [by_source])
        if way is by_run_engine or not case.live_only
    ],
)
def test_documents_cost_nothing_but_themselves(
    theatre: Theatre, case: Case, way: Callable[[Theatre, Case], None]
) -> None:
    way(theatre, case)
    theatre.check(case)
    theatre.check_no_journal_is_left()


@pytest.mark.slow
def test_one_node_takes_all_documents_one_after_the_other(theatre: Theatre) -> None:
    ingress = Ingress(ThreadWorker(theatre.segmentation, inbox=theatre.inbox))
    for number, case in enumerate(cases("documents", "frames", "files")):
        case.feed(theatre.stage(ingress))
        good_run(theatre.stage(ingress), f"good-{number}")
        assert ingress.wait(LIMIT)
        assert theatre.sink.accounts[f"good-{number}"].written == 3, case.name
    ingress.close(LIMIT)
    theatre.check_nothing_got_out()


@pytest.mark.parametrize("case", cases("bytes"), ids=lambda case: case.name)
def test_bytes_on_a_port_cost_nothing_but_themselves(theatre: Theatre, case: Case) -> None:
    with Port(theatre) as stage:
        case.feed(stage)
        good_run(stage)
    theatre.check(case)
    theatre.check_no_journal_is_left()


@pytest.mark.parametrize("case", cases("pairs"), ids=lambda case: case.name)
def test_messages_of_a_broker_cost_nothing_but_themselves(theatre: Theatre, case: Case) -> None:
    messages = Messages("broker", "send msgpack", logging.getLogger("test"))

    class Broker:
        redelivers = True

        def run(self, callback: Callback, stopping: threading.Event) -> None:
            def deliver(message: bytes) -> None:
                if (document := messages.read_pair(message)) is not None:
                    callback(*document)

            stage = theatre.stage(lambda name, doc: deliver(encode([name, doc])))
            stage.raw = deliver
            case.feed(stage)
            good_run(stage)

        def stored(self, number: int) -> None:
            pass

    theatre.feed(Broker())
    theatre.check(case)
    theatre.check_no_journal_is_left()


@pytest.mark.parametrize("case", cases("recordings"), ids=lambda case: case.name)
def test_recordings_cost_nothing_but_themselves(theatre: Theatre, case: Case) -> None:
    case.feed(theatre.stage(lambda name, doc: None))
    theatre.watch.touched()  # the case itself may have looked
    with closing(DocumentWriter(theatre.root / "good.msgpack")) as writer:
        good_run(theatre.stage(writer))
    theatre.feed(open_replay(str(theatre.root)))
    theatre.check(case)
    theatre.check_no_journal_is_left()


@pytest.mark.parametrize("case", cases("journals"), ids=lambda case: case.name)
def test_journals_that_were_tampered_with_cost_their_own_run_at_most(
    theatre: Theatre, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    run = theatre.stage(lambda name, doc: None).run()
    stopping = threading.Event()

    def begin(stage: Stage) -> None:
        run.stage = stage
        run.begin()
        for _ in range(4):
            run.good()
        stopping.wait(LIMIT)

    def go_on(stage: Stage) -> None:
        run.stage = stage
        run.good()
        run.end()

    killer = threading.Thread(target=_stop_when, args=(theatre, stopping))
    killer.start()
    theatre.feed(ScriptedSource(theatre, begin), stopping)
    killer.join(LIMIT)
    (folder,) = [each for each in theatre.spool.runs.iterdir() if each.is_dir()]
    assert len((folder / "checkpoint").read_bytes()) > 1000
    case.feed(theatre.stage(lambda name, doc: None, folder))
    secret = (theatre.outside / "secret.raw").read_bytes()
    theatre.watch.touched()  # the case and this test looked

    before, theatre.sink = theatre.sink, ResumableSink()
    theatre.sink.rows.update(before.rows)
    theatre.feed(ScriptedSource(theatre, go_on, good_run))
    theatre.check(case)
    said = ("Remove the folder", "cannot go on with the run in", "belongs to no open run")
    assert case.masks or any(text in caplog.text for text in said)
    assert (theatre.outside / "secret.raw").read_bytes() == secret


def _stop_when(theatre: Theatre, stopping: threading.Event) -> None:
    while len(theatre.sink.rows.get("spoiled", ())) < 4 and not stopping.wait(0.005):
        pass
    stopping.set()


@pytest.mark.parametrize("case", cases("profiles"), ids=lambda case: case.name)
def test_profiles_are_read_as_text_and_refused_in_one_sentence(
    theatre: Theatre, case: Case
) -> None:
    case.feed(theatre.stage(lambda name, doc: None))
    with pytest.raises(ProfileError) as caught:
        load_profile(str(theatre.root / "hostile.yml"))
    assert "hostile.yml" in str(caught.value)
    assert len(str(caught.value)) < 2000
    theatre.check_nothing_got_out()
    assert load_profile("demo").name
