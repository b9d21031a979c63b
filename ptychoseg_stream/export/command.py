"""What the command export does."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from ..profile import load_profile
from ..science.experiment import Experiment
from ..sinks.stored import open_stored
from .cxi import write_cxi
from .gather import gather
from .given import Given, pixel_size_of, read_positions
from .ptychodus import positions_beside, write_ptychodus
from .raw import open_raw
from .target import require_free


@dataclass(frozen=True, slots=True)
class ExportArguments:
    """As the options of `ptychoseg export`."""

    run: str
    output: Path
    frames: str = ""
    positions: str = ""
    positions_unit: str = "m"
    energy: float = 0.0
    distance: float = 0.0
    pixel_size: str = ""
    ptychodus: Path | None = None
    force: bool = False
    raw: bool = True
    profile: str = "beamline"


def export_run(arguments: ExportArguments, say: Callable[[str], None]) -> None:
    """Write the file, and say what is in it and what was left out.

    Raises
    ------
    PtychosegError
        If something is missing or cannot be written; the text says what to do.
    """
    for path in _targets(arguments):
        require_free(path, force=arguments.force)
    given = _given(arguments)
    profile = load_profile(arguments.profile)
    key = os.environ.get(profile.tiled.api_key_env, "")
    with (
        open_stored(arguments.run, profile.tiled, key) as stored,
        open_raw(stored, arguments.frames, profile) as raw,
    ):
        gathered = gather(stored, raw, given)
        run = gathered.run
        write_cxi(run, arguments.output, force=arguments.force, raw=arguments.raw)
        height, width = run.shape
        what = f"{len(run)} frames of {height}x{width} px, raw run {run.raw_uid}"
        say(f"{arguments.output}: {what}")
        if arguments.ptychodus is not None:
            beside = write_ptychodus(run, arguments.ptychodus, force=arguments.force)
            say(f"{arguments.ptychodus}, {beside}: the same for ptychodus")
    for note in gathered.notes:
        say(f"note: {note}")


def _targets(arguments: ExportArguments) -> list[Path]:
    if arguments.ptychodus is None:
        return [arguments.output]
    if arguments.ptychodus.suffix != ".npz":
        raise DatasetError(f"--ptychodus {arguments.ptychodus}: give a name that ends in .npz")
    return [arguments.output, arguments.ptychodus, positions_beside(arguments.ptychodus)]


def _given(arguments: ExportArguments) -> Given:
    positions = (
        read_positions(arguments.positions, arguments.positions_unit)
        if arguments.positions
        else None
    )
    pixel_size = pixel_size_of(arguments.pixel_size)
    experiment = Experiment(arguments.energy, arguments.distance, pixel_size)
    return Given(experiment, positions, arguments.positions)
