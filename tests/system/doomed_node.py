"""Nodes that are killed at seeded moments, and started again: real processes."""

import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychoseg_callbacks.runs.resume import Checkpoint

from ptychoseg_stream.errors import CheckpointError
from ptychoseg_stream.profile import Profile

log = logging.getLogger(__name__)

LIMIT = 120.0  # s until a wait is given up


def checkpoint_of(profile: Profile, derived: str = "*") -> int:
    """Return the frame that a restart would go on from, of whichever run is furthest."""
    found = [0]
    for path in profile.spool.runs.glob(f"{derived}/checkpoint"):
        with contextlib.suppress(OSError, CheckpointError):
            found.append(Checkpoint.unpack(path.read_bytes()).next)
    return max(found)


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.002)


@dataclass(frozen=True)
class Moment:
    """When a node is killed.

    Parameters
    ----------
    checkpoint : int
        Once this many frames need not be labelled again ...
    touch : str
        ... and then a file of this pattern is there, of those in the folder of the test ...
    seconds : float
        ... and so many seconds have gone by.
    started : bool
        Whether the node is to have said that it reads its source first.
    patience : float
        How long the file is waited for [s].
    """

    checkpoint: int = 0
    touch: str = ""
    seconds: float = 0.0
    started: bool = True
    patience: float = 1.0


TOUCHED = (
    "spool/runs/*/.checkpoint.part",
    "spool/runs/.*",
    "cache/**/*part*",
    "spool/masks/*/*part*",
    "spool/masks/*/rows-*.h5",
)


def moments(seed: int, kills: int, duration: float) -> list[Moment]:
    """Return when to kill a node that is busy for a while [s]: anywhere, then where it resumes."""
    chance = random.Random(seed)
    early = [
        Moment(0, chance.choice([*TOUCHED, *[""] * 4]), seconds, chance.random() < 0.7)
        for seconds in sorted(chance.uniform(0.0, 0.8 * duration) for _ in range(kills - 2))
    ]
    soon = 0.1 * duration
    late = [
        Moment(step, chance.choice([*TOUCHED, ""]), chance.uniform(0, soon), patience=soon)
        for step in (chance.randint(1, 3), chance.randint(4, 9))
    ]
    return [*early, *late]


class DoomedNode:
    """A command that is killed, and started again, until it ends by itself.

    Parameters
    ----------
    arguments : sequence of str
        Of `ptychoseg`.
    profile : Profile
        Theirs.
    folder : Path
        For the logs, one per life.
    api_key : str
        Of the server.
    """

    def __init__(
        self, arguments: Sequence[str], profile: Profile, folder: Path, api_key: str
    ) -> None:
        self.profile = profile
        self.kills = 0
        self._command = [sys.executable, "-m", "ptychoseg_stream", *arguments]
        self._folder = folder
        self._env = {**os.environ, profile.tiled.api_key_env: api_key, "COLUMNS": "500"}
        self._lives: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin another life."""
        path = self._folder / f"life-{len(self._lives)}.log"
        self._lives.append(path)
        with path.open("wb") as out:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._env
            )

    @property
    def said(self) -> str:
        """All that was said in this life."""
        return self._lives[-1].read_text()

    @property
    def all_said(self) -> str:
        return "\n".join(path.read_text() for path in self._lives)

    @property
    def resumed_from(self) -> list[int]:
        """Frames that lives went on from."""
        return [int(n) for n in re.findall(r"goes on from frame (\d+)", self.all_said)]

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill_at(self, moment: Moment, ready: str) -> bool:
        """Kill it at a moment; False if it had ended by itself before."""
        if moment.started:
            self._wait(lambda: ready in self.said, LIMIT)
        self._wait(lambda: checkpoint_of(self.profile) >= moment.checkpoint, LIMIT)
        if moment.touch:
            self._wait(lambda: any(self._folder.glob(moment.touch)), moment.patience)
        self._wait(lambda: False, moment.seconds)
        if not self.running:
            return False
        self.kill()
        self.kills += 1
        last = self.said.strip().splitlines()[-1:]
        log.warning(
            "killed at %s, checkpoint %d, after saying %s",
            moment,
            checkpoint_of(self.profile),
            last,
        )
        return True

    def live_through(self, kills: Sequence[Moment], ready: str) -> int:
        """Start it, kill it at each moment, and let it end; return its exit code.

        A node that is killed when all is done is not started again: nothing was left to do.
        """
        for moment in kills:
            self.start()
            if not self.kill_at(moment, ready) or self.done:
                break
        return self.end_anew()

    def end_anew(self) -> int:
        """Have the last life end what the others left; return its exit code."""
        if self.kills and not self.done:
            self.start()
        code = self.end()
        return 0 if self.done and code == -signal.SIGKILL else code

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        assert self.process is not None
        code = self.process.wait(LIMIT)
        log.warning("ended with %d after %d kills, saying %s", code, self.kills, self.said)
        return code

    @property
    def done(self) -> bool:
        """Whether there is nothing to go on with."""
        runs = self.profile.spool.runs
        return (runs / "finished").exists() and not any(runs.glob("*/run.json"))

    def _wait(self, condition: Callable[[], bool], limit: float) -> None:
        end = time.monotonic() + limit
        while self.running and not condition() and time.monotonic() < end:
            time.sleep(0.001)


@contextlib.contextmanager
def doomed(
    arguments: Sequence[str], profile: Profile, folder: Path, api_key: str
) -> Iterator[DoomedNode]:
    """Make a node, and see to it that none is left."""
    node = DoomedNode(arguments, profile, folder, api_key)
    try:
        yield node
    finally:
        if node.running:
            node.kill()
