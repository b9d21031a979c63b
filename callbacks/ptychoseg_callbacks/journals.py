"""Finds the runs that a dead process has left, and begins journals of new ones."""

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from pathlib import Path

from ptychoseg_stream.node.ports import Clock
from ptychoseg_stream.node.spool import SpoolOptions

from .disk import check_free, locked, sync_folder, write_whole
from .finished import FinishedRuns
from .journal import ABOUT, LOCK, Journal

log = logging.getLogger(__name__)

_ABANDONED = 3600.0  # s: to make a journal takes a moment


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
    """

    def __init__(self, options: SpoolOptions, clock: Clock = time.time, owner: str = "") -> None:
        self._options = options
        self._clock = clock
        self._owner = owner
        self._finished = FinishedRuns(options.runs / "finished", owner)

    def create(self, raw: str) -> Journal | None:
        """Return a new journal of a raw run; None, and an error line, if there can be none."""
        derived, began = str(uuid.uuid4()), self._clock()
        about = {"raw": raw, "derived": derived, "began": began, "owner": self._owner}
        runs = self._options.runs
        folder = runs / derived
        # Other processes look at whole folders only, with a lock that is held.
        growing = runs / f".{derived}"
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
        except OSError as error:
            shutil.rmtree(growing, ignore_errors=True)
            log.error(
                "run %s: there is no journal, because %s cannot be used: %s. The run goes on; but "
                "if the node is killed, the rest of the run is lost. Free space on that disk, or "
                "choose another folder (spool.folder)",
                raw,
                runs,
                error,
            )
            return None

    def unfinished(self) -> list[Journal]:
        """Return the journals that processes left which live no more; they are ours from now on."""
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

    def _take_over(self, folder: Path) -> Journal | None:
        try:
            lock = locked(folder / LOCK)
        except OSError:
            return None  # a living process works on it, or it is no journal
        try:
            about = json.loads((folder / ABOUT).read_bytes())
            if about["owner"] != self._owner:
                os.close(lock)
                return None
            texts = (about["raw"], about["derived"])
            if not all(isinstance(each, str) for each in texts) or about["derived"] != folder.name:
                raise ValueError("it is not what this folder's name says")
            float(about["began"])
            return Journal(folder, about, lock, self._options, self._finished.add, True)
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
