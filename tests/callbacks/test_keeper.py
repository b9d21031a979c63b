"""What is kept of an open run, so that another process goes on with it."""

import threading
from pathlib import Path

import pytest
from callbacks_support import ListSink, ThresholdLabeller
from callbacks_targets import ListSource, documents
from ptychoseg_callbacks.feeder import Fed, feed
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.runs.resume import Checkpoint
from ptychoseg_callbacks.segmentation import Segmentation

from ptychoseg_stream.node.ports import RunInfo
from ptychoseg_stream.node.spool import SpoolOptions


class LaggingSink(ListSink):
    """Rows are safe only when somebody has waited for them."""

    def __init__(self) -> None:
        super().__init__()
        self.drained = False

    def stored(self, run_uid: str) -> int:
        return super().stored(run_uid) if self.drained else 0

    def drain(self, timeout: float) -> bool:
        self.drained = True
        return True


class TellingLabeller(ThresholdLabeller):
    """Its memory of a run that has had no frame is worth something."""

    def checkpoint(self, run_uid: str) -> bytes:
        return f"0{self.labelled[run_uid]}".encode()


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOptions:
    return SpoolOptions(str(tmp_path), min_free_bytes=0)


def stopped(
    spool: SpoolOptions, sink: ListSink, count: int, labeller: ThresholdLabeller | None = None
) -> Fed:
    """Feed the first documents of a run; then the process is told to end."""
    stopping = threading.Event()
    docs = documents("a", 6)[:count]
    docs[1][1]["data_keys"] = {"image": {"source": "", "dtype": "array", "shape": [16, 16]}}
    segmentation = Segmentation(
        labeller or TellingLabeller(), sink, lambda start: RunInfo("a", start, {})
    )
    source = ListSource(docs, waits=True)
    inbox = Inbox(Journals(spool))

    def stop() -> None:
        assert source.delivered.wait(60)
        stopping.set()

    waiter = threading.Thread(target=stop)
    waiter.start()
    fed = feed(segmentation, source, inbox, stopping)
    waiter.join()
    return fed


def checkpoint(spool: SpoolOptions) -> Checkpoint:
    (path,) = spool.runs.glob("*/checkpoint")
    return Checkpoint.unpack(path.read_bytes())


def test_a_run_that_is_left_is_gone_on_with_behind_the_last_row_that_became_safe(
    spool: SpoolOptions,
) -> None:
    sink = LaggingSink()
    fed = stopped(spool, sink, 6)
    assert fed.left == 1
    assert [mask.frame.index for mask in sink.masks["a"]] == [0, 1, 2, 3]
    assert checkpoint(spool).next == 4
    assert checkpoint(spool).tally["received"] == 4


def test_a_run_that_cannot_be_opened_is_given_up_after_three_attempts(spool: SpoolOptions) -> None:
    def refuse(start: object) -> RunInfo:
        raise ValueError("this start document is odd")

    for life in range(4):
        segmentation = Segmentation(ThresholdLabeller(), ListSink(), refuse)
        inbox = Inbox(Journals(spool))
        assert inbox.resumed == (0 < life < 3)
        source = ListSource([] if life else documents("a", 6))
        fed = feed(segmentation, source, inbox)
        assert fed.left == 0
        (attempts,) = spool.runs.glob("*/attempts")
        assert attempts.read_text() == f"{min(life + 1, 3)} 0"


def test_what_the_labeller_knows_when_a_run_begins_is_kept_before_its_first_frame(
    spool: SpoolOptions,
) -> None:
    fed = stopped(spool, ListSink(), 2)
    assert fed.left == 1
    assert checkpoint(spool).next == 0
    assert checkpoint(spool).labeller == b"00"


class SpoilingLabeller(TellingLabeller):
    """Has a folder where the checkpoint would be written, as if the disk were broken there."""

    def __init__(self, runs: Path) -> None:
        super().__init__()
        self.runs = runs

    def checkpoint(self, run_uid: str) -> bytes:
        for journal in self.runs.glob("*/run.json"):
            journal.with_name(".checkpoint.part").mkdir()
        return super().checkpoint(run_uid)


def test_a_run_whose_settings_cannot_be_written_down_has_no_journal(
    spool: SpoolOptions, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ListSink()
    fed = stopped(spool, sink, 6, SpoilingLabeller(spool.runs))
    assert fed.left == 0
    assert sink.accounts["a"].exit_status == "fail"
    assert not list(spool.runs.glob("*/run.json"))
    assert "there is no journal, because its first checkpoint cannot be written" in caplog.text
