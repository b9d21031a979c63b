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

from ..node.disk import locked
from ..node.spool import SpoolOptions
from ..sinks.spool import waiting
from .check import Check, fail, note, several


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
    try:
        os.close(locked(folder / LOCK))
    except BlockingIOError:
        return "in use"
    except OSError:
        return "damaged"
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        if about["owner"] != owner:
            return "of another"
        if this_machine().is_other(str(about.get("machine", ""))) and not (folder / ADOPT).exists():
            return "of another machine"
        return "left aside" if Attempts(folder).used_up else "left"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "damaged"


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []
    return [each for each in found if not each.name.startswith(".")]
