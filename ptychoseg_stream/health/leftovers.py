"""What other nodes, or dead ones, left in the spool folder: open runs, and masks that wait."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ptychoseg_callbacks.journals.attempts import Attempts
from ptychoseg_callbacks.journals.folder import ADOPT
from ptychoseg_callbacks.journals.journal import ABOUT, LOCK
from ptychoseg_callbacks.journals.machine import this_machine

from ..node.disk import is_locked, locked
from ..node.spool import SpoolOptions
from ..sinks.spool import waiting
from .check import Check, fail, note, several

REPLAY = "replay"
"""What nodes of `ptychoseg replay` add to the name of their profile: see `build_inbox`."""


def leftover_checks(spool: SpoolOptions, owner: str) -> Iterator[Check]:
    """Look at what waits in the spool; nothing is changed.

    Parameters
    ----------
    spool : SpoolOptions
    owner : str
        Name of the profile: only its nodes go on with its runs.
    """
    yield from _journals(spool.runs, owner)
    yield from _masks(spool)


def at_work(spool: SpoolOptions, owner: str) -> int:
    """Return how many open runs of nodes of this name a living process on this machine holds.

    Those of this process are among them. A node that has no open run now cannot be seen.
    """
    return sum(_owner(each) == owner and is_locked(each / LOCK) for each in _folders(spool.runs))


def is_held(spool: SpoolOptions, derived: str) -> bool:
    """Whether a living process on this machine has a derived run open, and keeps its journal."""
    return any(each.name == derived and is_locked(each / LOCK) for each in _folders(spool.runs))


def _journals(folder: Path, owner: str) -> Iterator[Check]:
    states = Counter(_state(each, owner) for each in _folders(folder))
    if count := states["in use"]:
        yield note("open runs", f"{several(count, 'run')} of nodes that work now, in {folder}")
    if count := states["left"]:
        yield note(
            "open runs",
            f"{several(count, 'run')} left by a node that ended or was killed, in {folder}",
            f"start a node with profile {owner}: it goes on with them",
        )
    if count := states["left aside"]:
        yield fail(
            "open runs",
            f"{several(count, 'run')} left aside, in {folder}: each time a node went on with it, "
            "the node died or could not open it",
            f"look into the node's log, mend the cause, remove {Attempts.FILE} in that folder, and "
            "start the node again",
        )
    if count := states["of another machine"]:
        yield note(
            "open runs",
            f"{several(count, 'run')} begun on another machine, in {folder}",
            f"start a node there; or make an empty file {ADOPT} in that folder, and start one here",
        )
    if count := states["of a replay"]:
        yield note(
            "open runs",
            f"{several(count, 'run')} of a replay with profile {owner} that was cut off, in "
            f"{folder}",
            "replay again with the same profile, or remove the folders",
        )
    if count := states["of another"]:
        yield note(
            "open runs",
            f"{several(count, 'run')} left by nodes of other profiles, in {folder}",
            "start those nodes again, or remove the folders",
        )
    damaged = [each.name for each in _folders(folder) if _state(each, owner) == "damaged"]
    if damaged:
        yield fail(
            "open runs",
            f"{several(len(damaged), 'run')} that nobody can go on with, in {folder}: {damaged[0]}"
            f"{', ...' if len(damaged) > 1 else ''}: {ABOUT} cannot be read",
            "remove these folders, and replay the raw runs",
        )


def _masks(spool: SpoolOptions) -> Iterator[Check]:
    runs = waiting(spool)
    left = [run for run in runs if not run.busy]
    if len(left) < len(runs):
        yield note(
            "waiting masks", f"{several(len(runs) - len(left), 'run')} that nodes are sending now"
        )
    if left:
        rows = several(sum(run.rows for run in left), "row")
        wait = "waits" if len(left) == 1 else "wait"
        yield note(
            "waiting masks",
            f"{several(len(left), 'run')} with {rows} {wait} for Tiled in {spool.masks}",
            "a node that runs sends them; `ptychoseg upload` does it now",
        )
    known = {run.path for run in runs}
    damaged = [each.name for each in _folders(spool.masks) if each not in known]
    if damaged:
        yield fail(
            "waiting masks",
            f"{several(len(damaged), 'run')} in {spool.masks} cannot be read: {damaged[0]}"
            f"{', ...' if len(damaged) > 1 else ''}",
            "move these folders away, and replay the raw runs",
        )


def _state(folder: Path, owner: str) -> str:
    in_use = False
    try:
        os.close(locked(folder / LOCK))
    except BlockingIOError:
        in_use = True
    except OSError:
        return "damaged"
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        aside = Attempts(folder).used_up
        if in_use:  # a node that runs writes down what comes of a run left aside, and no more
            return "left aside" if aside and about["owner"] == owner else "in use"
        if about["owner"] != owner:
            return "of a replay" if about["owner"] == f"{owner} {REPLAY}" else "of another"
        if this_machine().is_other(str(about.get("machine", ""))) and not (folder / ADOPT).exists():
            return "of another machine"
        return "left aside" if aside else "left"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "in use" if in_use else "damaged"


def _owner(folder: Path) -> str:
    try:
        return str(json.loads((folder / ABOUT).read_bytes())["owner"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []
    return [each for each in found if not each.name.startswith(".")]
