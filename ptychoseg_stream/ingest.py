"""What the commands run and replay do: a node of its own, fed by a source."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ptychoseg_callbacks.feeder import Fed, FeedOptions, feed, stop_on_signals
from ptychoseg_callbacks.queueing.inbox import Inbox
from ptychoseg_callbacks.source import Source
from rich.console import Console
from rich.markup import escape

from .assemble import build_inbox, build_raw, build_segmentation, with_server
from .errors import SourceError
from .health.check import several
from .health.leftovers import REPLAY, at_work
from .node.vitals import Vitals
from .profile import EMBEDDED, Profile, load_profile
from .sinks.connection import is_for, without_key
from .sinks.embedded import EmbeddedTiled
from .sinks.spool import waiting
from .sinks.upload import upload_all
from .sources.addresses import open_source
from .sources.recorded.replay import Replay, ReplayOptions, open_replay
from .sources.tiled.documents import Wanted
from .sources.tiled.replay import ReplayOptions as TiledReplayOptions
from .sources.tiled.replay import TiledReplay
from .sources.tiled.search import Selection
from .watch import narrated

log = logging.getLogger(__name__)
console = Console(width=None if sys.stdout.isatty() else 120)

_UPLOAD = 60.0  # s that a replay tries at its end to send what waits
_TWO_NODES = (
    "another node with the name %s works on this machine: give this profile a name of its own, or "
    "end one of the two; what both hear of is labelled twice"
)


@dataclass(frozen=True, slots=True)
class ReplayArguments:
    """As the options of `ptychoseg replay`."""

    targets: Sequence[str]
    profile: str = "beamline"
    pace: str = ""
    limit: int = 0
    since: str = ""
    until: str = ""
    where: Sequence[str] = ()


def run_node(address: str, profile_name: str, for_seconds: float = 0.0) -> bool:
    """Label what a source delivers until Ctrl-C or SIGTERM; return whether all is stored.

    Parameters
    ----------
    address : str
        Of the source.
    profile_name : str
        Name or file of the profile.
    for_seconds : float
        End after so long [s]; 0: never.
    """
    profile = load_profile(profile_name)
    wanted = Wanted(profile.frames.streams, profile.frames.data_keys)
    resumed: list[str] = []
    # Before all else: a wrong address is told at once.
    source = open_source(address, profile.sources, wanted, resumed)
    stopping = threading.Event()

    def listening(inbox: Inbox) -> Source:
        resumed.extend(inbox.open_runs)
        console.print(f"listening to [bold]{address}[/]; Ctrl-C ends", highlight=False)
        return source

    with ExitStack() as stack:
        if for_seconds:
            timer = threading.Timer(for_seconds, stopping.set)
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        fed = _feed(profile, listening, stopping)
    complete = _summary(fed)
    _tell_waiting(profile, profile_name)  # masks on disk are safe: no reason to fail
    return complete


def replay(arguments: ReplayArguments) -> bool:
    """Label recorded runs; return whether all of them were read, and all masks are in Tiled."""
    profile = load_profile(arguments.profile)
    try:
        source, profile = open_recorded(arguments, profile)
    except ValueError as error:  # of the options of a source: its text begins with the name
        raise SourceError(f"--{error}") from error
    fed = _feed(profile, lambda _: source, threading.Event(), REPLAY)
    if fed.exhausted:
        _send_waiting(profile)
    told = _summary(fed), _all_read(source, fed), not _tell_waiting(profile, arguments.profile)
    return all(told)


def _all_read(source: Source, fed: Fed) -> bool:
    """Say what was not read of recorded runs, if anything; return whether all of them were."""
    runs = source.left_out if isinstance(source, TiledReplay) else []
    for why in runs:
        _say(f"[red]not replayed[/]: {escape(why)}")
    records = source.left_out if isinstance(source, Replay) else 0
    if isinstance(source, Replay) and records:
        what = "1 record was" if records == 1 else f"{records} records were"
        _say(f"[red]{what} left out[/]: {escape(source.problems[0])}")
    if not fed.exhausted:
        _say("[red]broken off[/]: start the same command again to go on")
    return fed.exhausted and not runs and not records


def _send_waiting(profile: Profile) -> None:
    """Try once more: Tiled may have come back a moment ago, and no other node may come."""
    if profile.tiled.uri != EMBEDDED and waiting(profile.spool):
        key = os.environ.get(profile.tiled.api_key_env, "")
        upload_all(profile.tiled, profile.spool, key, _UPLOAD, elsewhere=False)


def _tell_waiting(profile: Profile, name: str) -> bool:
    """Say which runs wait on this disk for the profile's server; return whether there are any.

    Those that a living process sends are none of them, nor those that a node goes on with.
    """
    if profile.tiled.uri == EMBEDDED:
        return False
    runs = [
        run
        for run in waiting(profile.spool)
        if is_for(profile.tiled, run.server, run.container) and not (run.busy or run.resumable)
    ]
    if runs:
        rows = several(sum(run.rows for run in runs), "row")
        wait = "waits" if len(runs) == 1 else "wait"
        _say(
            f"[red]{several(len(runs), 'run')} ({rows}) {wait}[/] in "
            f"{escape(str(profile.spool.masks))} for Tiled: mend what the log says, then "
            f"`ptychoseg upload --profile {escape(name)}`"
        )
    return bool(runs)


def _say(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)


def open_recorded(arguments: ReplayArguments, profile: Profile) -> tuple[Source, Profile]:
    """Return the source of recorded runs, and the profile with the folders it reads from.

    Raises
    ------
    SourceError
        If there is no such run or file, or options do not go together.
    """
    tiled = [target for target in arguments.targets if "://" in target]
    if not tiled:
        options = ReplayOptions(
            arguments.pace,
            arguments.limit,
            profile.frames.streams,
            profile.frames.data_keys,
        )
        if arguments.since or arguments.until or arguments.where:
            raise SourceError("--since, --until and --where choose runs of a Tiled server only")
        source = open_replay(arguments.targets, options)
        frames = profile.frames
        roots = (*frames.roots, *map(str, source.folders)) if frames.roots else ()
        return source, replace(profile, frames=replace(frames, roots=roots))
    if len(arguments.targets) > 1:
        raise SourceError("one Tiled address at a time; several runs as ADDRESS/uid,uid")
    if arguments.pace or arguments.limit:
        raise SourceError("--pace and --limit are for files; runs of Tiled are read at full speed")
    wanted = Wanted(profile.frames.streams, profile.frames.data_keys)
    options = TiledReplayOptions(profile.sources.tiled.api_key_env)
    selection = Selection(arguments.since, arguments.until, _pairs(arguments.where))
    return TiledReplay(tiled[0], selection, options, wanted), profile


def _pairs(where: Sequence[str]) -> dict[str, str]:
    for text in where:
        if "=" not in text:
            raise SourceError(f"--where {text}: give key=value, as in plan_name=grid_scan")
    return dict(text.split("=", 1) for text in where)


def _feed(
    profile: Profile,
    source_for: Callable[[Inbox], Source],
    stopping: threading.Event,
    purpose: str = "",
) -> Fed:
    logging.basicConfig(format="ptychoseg: %(message)s", level=logging.WARNING)
    for name in ("ptychoseg_callbacks.accounts", "ptychoseg_stream.sources"):
        logging.getLogger(name).setLevel(logging.INFO)
    with ExitStack() as stack:
        api_key = ""
        if profile.tiled.uri == EMBEDDED:
            server = stack.enter_context(EmbeddedTiled())
            api_key = server.api_key
            profile = with_server(profile, server)
            console.print(
                f"masks go to an embedded Tiled server, {server.uri}, that ends with this command"
            )
        else:
            where = f"{without_key(profile.tiled.uri)}/{profile.tiled.container.strip('/')}"
            _say(f"profile {escape(profile.name)}: masks go to {escape(where)}")
        if not purpose and at_work(profile.spool, profile.name):
            log.warning(_TWO_NODES, profile.name)
        raw = build_raw(profile)
        if raw is not None:
            stack.callback(raw.close)
        inbox = build_inbox(profile, raw, purpose)
        target = build_segmentation(profile, api_key, raw)
        told: list[Vitals] = [Vitals()]
        report: Callable[[Vitals], None] = lambda vitals: told.__setitem__(0, vitals)  # noqa: E731
        stack.enter_context(stop_on_signals(stopping))
        stack.enter_context(narrated(console, lambda: told[0], period=10.0))
        return feed(target, source_for(inbox), inbox, stopping, FeedOptions(), report)


def _summary(fed: Fed) -> bool:
    again = f", {fed.duplicates} of them had come before" if fed.duplicates else ""
    documents = "1 document" if fed.documents == 1 else f"{fed.documents} documents"
    console.print(f"{documents}{again}", highlight=False)
    if fed.left:
        runs = "run waits" if fed.left == 1 else "runs wait"
        console.print(
            f"{fed.left} open {runs} on this disk: start the same command again to go on",
            highlight=False,
        )
    if not fed.complete:
        console.print("[red]not all masks are stored[/]; start the same command again to go on")
    return fed.complete
