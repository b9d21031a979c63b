"""What the command reconstruct does: a run while it is measured, or a file."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from .assemble import single_threaded
from .errors import DatasetError, FeedGone, StoreError
from .feed import follow
from .feed.follow import Item
from .profile import Profile, load_profile
from .recon.toolkit import cdtools
from .sinks.connection import connect, translated

Follow: TypeAlias = Callable[..., Iterable[Item]]
console = Console(width=None if sys.stdout.isatty() else 120)
PAUSE = 5.0
"""Between two pictures, and two versions in Tiled [s]."""


@dataclass(frozen=True, slots=True)
class ReconstructArguments:
    """As the options of `ptychoseg reconstruct`."""

    follow: str = ""
    file: Path | None = None
    output: Path = Path("reconstruction.png")
    run: str = ""
    epochs: int = 0
    ring_first: int = 0
    weights: bool = False
    defocus: float = 0.0
    object_pixel: float = 0.0
    profile: str = "beamline"
    store: bool = True
    seed: int = 0


def run_reconstruction(arguments: ReconstructArguments) -> bool:
    """Reconstruct, and tell how it goes.

    Returns
    -------
    bool
        Whether all that was wanted is stored.

    Raises
    ------
    ExtraMissing
        If cdtools is not installed.
    DatasetError, SourceError
        If there is nothing to reconstruct.
    """
    cdtools()  # before anything else: without it there is nothing to do
    if bool(arguments.follow) == (arguments.file is not None):
        raise DatasetError("give either --follow ADDRESS or --file FILE.cxi")
    single_threaded()
    if arguments.file is not None:
        return _run_file(arguments, arguments.file)
    return run_live(arguments, follow_on)


def follow_on(address: str, run: str = "", *, api_key: str = "") -> Iterator[Item]:
    """Follow a run; in Tiled, if its feed has a hole and says where the run is."""
    try:
        yield from follow(address, run, api_key=api_key)
    except FeedGone as gone:
        if not gone.address:
            raise
        _say(f"{gone}; going on there")
        yield from follow(gone.address, api_key=api_key)


def _run_file(arguments: ReconstructArguments, path: Path) -> bool:
    from .recon.engine import Engine
    from .recon.files import read_cxi

    scan = read_cxi(path)
    engine = Engine(scan, _options(arguments))
    total = arguments.epochs or 40
    losses: list[float] = []
    shown = _Shown(arguments.output, path.name)
    for epoch in range(total):
        step = engine.epoch()
        losses.append(step.loss)
        _say(f"epoch {epoch + 1:3d}/{total}  frames {step.frames}  error {step.loss:.4f}")
        shown.perhaps(engine, losses, last=epoch + 1 == total)
    return True


def run_live(arguments: ReconstructArguments, follower: Follow) -> bool:
    """Follow a run and reconstruct it; `follower` opens the feed."""
    from .recon.live import LiveOptions, ThreadInbox, live

    profile = load_profile(arguments.profile)
    prepare = profile.node.prepare
    key = os.environ.get(profile.tiled.api_key_env, "")
    inbox = ThreadInbox(follower(arguments.follow, arguments.run, api_key=key))
    options = LiveOptions(arguments.epochs or 10, prepare.pedestal, prepare.gain)
    losses: list[float] = []
    shown = _Shown(arguments.output)
    stored = _Stored(profile, key, arguments) if arguments.store else None
    for update in live(inbox, _options(arguments), options):
        step = update.step
        losses.append(step.loss)
        planned = f"/{update.planned}" if update.planned else ""
        state = "  the run has ended" if update.ended else ""
        _say(
            f"epoch {step.epoch + 1:3d}  frames {step.frames} of {update.come}{planned}  "
            f"error {step.loss:.4f}{state}"
        )
        shown.title = f"run {update.start.run}"
        shown.perhaps(update.engine, losses, last=update.last)
        if stored:
            stored.perhaps(update, losses)
    return not stored or not stored.fault


def _options(arguments: ReconstructArguments) -> Any:
    from .recon.engine import ReconOptions
    from .recon.schedule import Schedule

    schedule = Schedule(arguments.ring_first, arguments.weights)
    return ReconOptions(schedule, arguments.defocus, arguments.object_pixel, seed=arguments.seed)


class _Every:
    """Says when it is time again."""

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause, self._next = pause, 0.0

    def due(self, last: bool) -> bool:
        now = time.monotonic()
        if not last and now < self._next:
            return False
        self._next = now + self._pause
        return True


class _Shown:
    """The picture on the disk."""

    def __init__(self, path: Path, title: str = "") -> None:
        self.title = title
        self._path, self._every = path, _Every()

    def perhaps(self, engine: Any, losses: list[float], *, last: bool) -> None:
        from .recon.picture import draw

        if not self._every.due(last):
            return
        title = f"{self.title}, epoch {len(losses)}"
        try:
            draw(self._path, engine.object, engine.probe, losses, title)
        except OSError as error:
            raise DatasetError(f"{self._path}: the picture cannot be written: {error}") from error
        if last:
            _say(f"picture: {self._path}")


class _Stored:
    """The reconstruction in Tiled; what fails is told, and tried again with the next version."""

    def __init__(self, profile: Profile, key: str, arguments: ReconstructArguments) -> None:
        self.fault = ""
        self._tiled, self._key, self._arguments = profile.tiled, key, arguments
        self._every, self._node = _Every(), None

    def perhaps(self, update: Any, losses: list[float]) -> None:
        from .recon.store import TiledReconstruction

        if not self._every.due(update.last):
            return
        engine, start, tiled = update.engine, update.start, self._tiled
        uri = server_of(start.tiled) or tiled.uri
        try:
            with translated(uri, tiled.api_key_env):
                if self._node is None:
                    root = connect(uri, self._key, tiled.timeout)
                    about = _about(start, self._arguments)
                    self._node = TiledReconstruction(root, tiled.container, start.derived, about)
                told = {
                    "object_pixel": [float(p) for p in engine.pixel],
                    "corner": list(engine.corner),
                    "frames": update.step.frames,
                    "epochs": len(losses),
                }
                self._node.write(engine.object, engine.probe, losses, told)
        except StoreError as error:
            self._node = None
            if str(error) != self.fault:
                _say(f"not in Tiled: {error}")
            self.fault = str(error)
            return
        self.fault = ""
        if update.last:
            _say(f"in Tiled: {self._node.node.uri}")


def server_of(address: str) -> str:
    """Return the server of a node's address, without its path; empty if it is none."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if rest else ""


def _about(start: Any, arguments: ReconstructArguments) -> Mapping[str, Any]:
    made = {k: v for k, v in asdict(arguments).items() if k not in ("file", "output", "follow")}
    return {
        "original_run_uid": start.run,
        "derived_run_uid": start.derived,
        "engine": f"cdtools {cdtools().__version__}",
        "options": made,
    }


def _say(line: str) -> None:
    console.print(line, highlight=False)
