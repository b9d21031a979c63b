"""Runs the parts of the hostile corpus that reach the sink against a real Tiled server."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import cases
from hostile_support import Case, bounded_memory, good_run
from hostile_theatre import LIMIT, ScriptedSource, Theatre
from ptychoseg_callbacks.feeder import FeedOptions, feed

from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.stored import open_stored
from ptychoseg_stream.sinks.tiled import TiledSink

NOBODY = TiledOptions(uri="http://127.0.0.1:9", timeout=1.0, retry_wait=0.05)


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    theatre = Theatre(tmp_path)
    yield theatre
    theatre.watch.close()


def options_of(tiled: EmbeddedTiled) -> TiledOptions:
    return TiledOptions(uri=tiled.uri, timeout=10.0, retry_wait=0.05, refused_wait=0.2)


def fed_to(theatre: Theatre, sink: TiledSink, *plays: object) -> None:
    source = ScriptedSource(theatre, *plays)
    options = FeedOptions(store_timeout=4 * LIMIT)  # each run has an end and products of its own
    feed(theatre.segmentation(sink), source, theatre.inbox(), None, options)  # type: ignore[arg-type]


def rows_stored(tiled: EmbeddedTiled, uid: str) -> int:
    with open_stored(uid, options_of(tiled), tiled.api_key) as run:
        assert run.stop["account"]["written"] == 3
        return run.lengths["mask"]


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("spool"), ids=lambda case: case.name)
def test_masks_that_wait_and_were_tampered_with_do_not_hold_up_others(
    theatre: Theatre, tiled: EmbeddedTiled, case: Case
) -> None:
    spoiled, good = (f"{word} {re.sub('[^a-z]', '-', case.name)}" for word in ("spoiled", "good"))
    fed_to(theatre, TiledSink(NOBODY, theatre.spool), lambda stage: good_run(stage, spoiled))
    (folder,) = theatre.spool.masks.iterdir()
    assert list(folder.glob("rows-*.h5"))
    case.feed(theatre.stage(lambda name, doc: None, folder))
    theatre.watch.touched()  # the case itself may have looked
    around = sorted(path.name for path in Path(theatre.spool.folder).parent.iterdir())
    with bounded_memory() as memory:
        sink = TiledSink(options_of(tiled), theatre.spool, api_key=tiled.api_key)
        fed_to(theatre, sink, lambda stage: good_run(stage, good))
    assert rows_stored(tiled, good) == 3
    assert memory.peak < case.memory
    theatre.check_nothing_got_out()
    assert sorted(path.name for path in Path(theatre.spool.folder).parent.iterdir()) == around
    assert [t.name for t in threading.enumerate() if t.name.startswith("ptychoseg")] == []


@pytest.mark.slow
def test_runs_of_odd_documents_do_not_hold_up_others_on_their_way_to_tiled(
    theatre: Theatre, tiled: EmbeddedTiled
) -> None:
    """Those that reach the server: uids, metadata, and how a run begins and ends."""
    reaching = re.compile("uid|metadata|stop|start")
    played = [each for each in cases("documents") if reaching.search(each.name)]
    played = [each for each in played if not each.live_only]
    assert len(played) > 20
    sink = TiledSink(options_of(tiled), theatre.spool, api_key=tiled.api_key)
    fed_to(
        theatre, sink, *(case.feed for case in played), lambda stage: good_run(stage, "the good")
    )
    assert sink.drain(LIMIT)
    assert rows_stored(tiled, "the good") == 3
    theatre.check_nothing_got_out()
