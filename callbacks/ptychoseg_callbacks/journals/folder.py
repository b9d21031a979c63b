"""Finds the runs that a dead process has left, and begins journals of new ones."""

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from ptychoseg_stream.node.disk import check_free, locked, sync_folder, write_whole
from ptychoseg_stream.node.ports import Clock
from ptychoseg_stream.node.spool import SpoolOptions

from .attempts import Attempts
from .finished import FinishedRuns
from .journal import ABOUT, LOCK, Journal
from .machine import Machine, this_machine

log = logging.getLogger(__name__)

ADOPT = "adopt"
"""Whoever puts a file of this name into a journal of another machine has it gone on with here."""

_ABANDONED = 3600.0  # s: to make a journal takes a moment
_PATIENCE = 0.2  # s: whoever only looks holds a lock for a moment


class Journals:
    """All journals below one folder.

    Parameters
    ----------
    options : SpoolOptions
        Which folder; what is to stay free on its disk.
    clock : callable
        Seconds since the epoch.
    owner : str
        Whose runs they are, such as the name of a profile: journals of others are left alone.
    machine : Machine, optional
        Where this is: on a shared folder, another machine may not see that a journal is locked.
    """

    def __init__(
        self,
        options: SpoolOptions,
        clock: Clock = time.time,
        owner: str = "",
        machine: Machine | None = None,
    ) -> None:
        self._options = options
        self._clock = clock
        self._owner = owner
        self._machine = machine or this_machine()
        self._finished = FinishedRuns(options.runs / "finished", owner)

    def create(self, raw: str) -> Journal | None:
        """Return a new journal of a raw run; None, and an error line, if there can be none."""
        try:
            return self._made(raw)
        except OSError as error:
            log.error(
                "run %s: there is no journal, because %s cannot be used: %s. The run goes on; but "
                "if the node is killed, the rest of the run is lost. Free space on that disk, or "
                "choose another folder (spool.folder)",
                raw,
                self._options.runs,
                error,
            )
            return None

    def create_early(self) -> Journal | None:
        """Return a journal of documents whose run is not known yet; its `raw` is empty."""
        with contextlib.suppress(OSError):
            return self._made("")
        return None

    def unfinished(self) -> list[Journal]:
        """Return the journals that processes left which live no more; they are ours from now on.

        Those that cost several processes are `Journal.aside`: what comes of them is written down.
        """
        try:
            folders = [each for each in self._options.runs.iterdir() if each.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error(
                "runs of an earlier process, if there are any, are not gone on with: %s: %s",
                self._options.runs,
                error,
            )
            return []
        for each in folders:
            if each.name.startswith("."):
                self._sweep(each)
        found = [self._take_over(each) for each in folders if not each.name.startswith(".")]
        return sorted((each for each in found if each is not None), key=lambda each: each.began)

    def is_finished(self, raw: str) -> bool:
        """Whether a raw run was processed completely, of late."""
        return raw in self._finished

    def _sweep(self, growing: Path) -> None:
        """Remove a journal whose process died while it made it, if that was long ago."""
        with contextlib.suppress(OSError):
            if self._clock() - growing.stat().st_mtime > _ABANDONED:
                shutil.rmtree(growing)

    def _made(self, raw: str) -> Journal:
        about = {
            "raw": raw,
            "derived": str(uuid.uuid4()),
            "began": self._clock(),
            "owner": self._owner,
            "host": self._machine.name,
            "machine": self._machine.mark,
        }
        runs = self._options.runs
        folder = runs / str(about["derived"])
        # Other processes look at whole folders only, with a lock that is held.
        growing = runs / f".{about['derived']}"
        try:
            runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_free(runs, self._options.min_free_bytes)
            growing.mkdir(mode=0o700)
            lock = locked(growing / LOCK, os.O_CREAT)
            try:
                write_whole(growing / ABOUT, json.dumps(about).encode())
                growing.rename(folder)
                sync_folder(runs)
                return Journal(folder, about, lock, self._options, self._finished.add, False)
            except OSError:
                os.close(lock)
                raise
        except OSError:
            shutil.rmtree(growing, ignore_errors=True)
            raise

    def _take_over(self, folder: Path) -> Journal | None:
        try:
            lock = locked(folder / LOCK, patience=_PATIENCE)
        except BlockingIOError:
            log.info("the run in %s is left to the process that works on it", folder)
            return None
        except OSError:
            return None  # it is no journal
        try:
            about = json.loads((folder / ABOUT).read_bytes())
            if about["owner"] != self._owner:
                os.close(lock)
                return None
            _check(about, folder)
            if self._is_ours(about, folder):
                aside = _is_harmful(about, folder)
                return Journal(folder, about, lock, self._options, self._finished.add, True, aside)
        except FileNotFoundError:
            shutil.rmtree(folder, ignore_errors=True)  # its process died while it removed it
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.error(
                "the run in %s is not gone on with: its %s cannot be used: %s. Remove the folder",
                folder,
                ABOUT,
                error,
            )
        os.close(lock)
        return None

    def _is_ours(self, about: dict[str, Any], folder: Path) -> bool:
        """Whether a journal was made on this machine, or handed over to it."""
        if not self._machine.is_other(str(about.get("machine", ""))):
            return True
        if (folder / ADOPT).exists():
            here = {"host": self._machine.name, "machine": self._machine.mark}
            write_whole(folder / ABOUT, json.dumps({**about, **here}).encode())
            (folder / ADOPT).unlink(missing_ok=True)
            return True
        log.warning(
            "run %s is left alone: it was begun on %s, this is %s, and a node there may still work "
            "on it. Start a node there; or, if none runs there, have it gone on with here: make an "
            "empty file %s, and start this node again",
            about["raw"],
            about.get("host") or "another machine",
            self._machine.name,
            folder / ADOPT,
        )
        return False


def _is_harmful(about: dict[str, Any], folder: Path) -> bool:
    """Whether a journal is not to be gone on with: that failed too often."""
    attempts = Attempts(folder)
    if attempts.used_up:
        log.error(
            "run %s is left aside: each of the last %d times that a node went on with it, the node "
            "died at the same document, or could not open the run. See the log for why, such as a "
            "file of its images. "
            "To try again, remove %s and start the node again; to give the run up, remove its "
            "folder. Its documents and masks stay until then",
            about["raw"] or "(documents that came early)",
            attempts.failed,
            attempts.path,
        )
    return attempts.used_up


def _check(about: dict[str, Any], folder: Path) -> None:
    """Raise what is wrong with what a journal says about itself."""
    texts = (about["raw"], about["derived"])
    if not all(isinstance(each, str) for each in texts) or about["derived"] != folder.name:
        raise ValueError("it is not what this folder's name says")
    float(about["began"])
