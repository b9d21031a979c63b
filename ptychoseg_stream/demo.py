"""`ptychoseg demo`: the main job, end to end, with everything it needs brought along."""

import contextlib
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from bluesky.run_engine import RunEngine
from numpy.typing import NDArray
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from rich.console import Console
from tiled.client.container import Container

from .assemble import Attachment, attach_to, single_threaded
from .errors import ProfileError, StoreError
from .evaluation.baselines import baselines
from .evaluation.evaluate import METHODS
from .evaluation.material import Material, read_material, references
from .evaluation.report import Panel, draw_report
from .evaluation.score import Score, by_stage, held_out, ring_ious, score
from .evaluation.tables import print_scores
from .profile import Profile, load_profile
from .science.experiment import Experiment
from .science.frame import ClassMap
from .sim.gold_balls import raster
from .sim.hdf5_detector import PlayedHDF5Detector
from .sim.plans import ptycho_scan, sample_stage
from .sinks.embedded import EmbeddedTiled
from .watch import narrated

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class Demo:
    """As the options of `ptychoseg demo`."""

    frames: str = "sim:drift"
    count: int = 150
    exposure: float = 0.1
    labels: str = ""
    trainer: str = "inline"
    output: Path = Path("demo-output")
    serve: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What a client reads back from Tiled.

    Parameters
    ----------
    maps : dict
        ``(n, h, w)`` class maps by array name.
    revisions : list of int
        Student of each row.
    account : dict
        Of the stop document.
    uid : str
        Of the derived run.
    """

    maps: dict[str, ClassMap]
    revisions: list[int]
    account: dict[str, Any]
    uid: str


def run_demo(demo: Demo) -> bool:
    """Scan, watch, read back, compare, draw.

    Returns
    -------
    bool
        Whether every frame has its mask in Tiled.
    """
    if demo.trainer not in ("inline", "background"):
        raise ProfileError(f"--trainer {demo.trainer}: must be inline or background")
    single_threaded()
    with console.status("getting frames"):
        material = read_material(demo.frames, demo.count)
    (demo.output / "raw").mkdir(parents=True, exist_ok=True)
    console.print(f"[bold]frames[/]  {material.name} {material.frames.shape}")
    with contextlib.ExitStack() as resources:
        with console.status("starting a Tiled server"):
            server = resources.enter_context(EmbeddedTiled(demo.output / "tiled"))
        console.print(f"[bold]Tiled[/]   {server.uri} (embedded, loopback, random key)")
        profile = _profile(demo, server.uri)
        attachment = attach_to(profile, server.api_key)
        try:
            raw_uid = _scan(material, demo, attachment)
            stored = _read_back(attachment.client(), raw_uid)
        finally:
            attachment.close()
        with console.status("scoring masks and baselines, drawing the report"):
            complete = _report(material, demo, profile, stored)
        _say_where(server, profile, stored, demo)
    return complete


def serve_again(folder: Path) -> None:
    """Serve the folder of an earlier demo until Ctrl-C.

    Raises
    ------
    StoreError
        If there is nothing to serve.
    """
    if not (folder / "catalog.db").is_file():
        raise StoreError(f"{folder} holds no masks; run `ptychoseg demo` first, or name its folder")
    with EmbeddedTiled(folder) as server:
        _wait_for_interrupt(server, load_profile("demo").tiled.container)


def _profile(demo: Demo, uri: str) -> Profile:
    profile = load_profile("demo")
    tiled = replace(profile.tiled, uri=uri)
    spool = replace(profile.spool, folder=str(demo.output.resolve() / "spool"))
    trainer = "background" if demo.trainer == "background" else "inline"
    # Students are kept for `ptychoseg reproduce`; centroids are fitted anew by each demo.
    cache = demo.output.resolve() / "cache"
    shutil.rmtree(cache / "index", ignore_errors=True)
    return replace(profile, tiled=tiled, spool=spool, trainer=trainer, cache=str(cache))


def _scan(material: Material, demo: Demo, attachment: Attachment) -> str:
    """Run the scan with the node attached, then wait for the last masks; return the run's uid."""
    n = len(material.frames)
    positions = material.positions
    if positions is None:
        side = int(np.ceil(np.sqrt(n)))
        positions = raster((side, side), 100e-9, n)
    engine = RunEngine({})
    files = StaticPathProvider(UUIDFilenameProvider(), demo.output.resolve() / "raw")
    with init_devices():
        detector = PlayedHDF5Detector(
            material.frames, files, name="detector", exposure=demo.exposure
        )
    x, y = sample_stage()
    engine.subscribe(attachment)
    with narrated(console, attachment.vitals, n):
        plan = ptycho_scan(detector, x, y, positions, md=_metadata(material.experiment))
        (uid,) = cast("Any", engine)(plan)
        if not attachment.wait(300.0):
            raise StoreError("masks are still not stored 300 s after the scan; see the log above")
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    return str(uid)


def _metadata(experiment: Experiment) -> dict[str, Any]:
    """Return what is known of the experiment, as a start document says it."""
    known = {
        "energy_eV": experiment.energy,
        "detector_distance_m": experiment.distance,
        "detector_pixel_size_m": list(experiment.pixel_size),
    }
    return {key: value for key, value in known.items() if np.all(value)}


def _read_back(client: Container, raw_uid: str) -> Stored:
    """Read the derived run as any client would."""
    from tiled.queries import Key

    found: Any = client.search(Key("start.original_run_uid") == raw_uid)
    if len(found) != 1:
        raise StoreError(f"{len(found)} derived runs of {raw_uid} in Tiled, there should be one")
    run = found.values().first()
    stream = run["primary"].base
    maps = {name: np.asarray(stream[name].read()) for name in ("mask", "teacher", "student")}
    maps["fused"] = maps.pop("mask")
    table = stream["internal"].read()
    account = dict(run.metadata["stop"]["account"])
    return Stored(maps, table["student_revision"].tolist(), account, str(found.keys().first()))


def _report(material: Material, demo: Demo, profile: Profile, stored: Stored) -> bool:
    """Print the table and draw the picture; return whether every frame has its mask."""
    options = profile.node
    name, reference = references(material, demo.labels, options)
    n = len(material.frames)
    scored = held_out(n, options.stages)
    cheap = baselines(material.frames, options.stages, options.prepare, quick=True)
    scores = [_score(m, stored, reference, scored) for m in METHODS]
    scores += [score(label, [maps], reference, scored) for label, maps in cheap.items()]
    title = f"{material.name}: masks read back from Tiled, {len(scored)} of {n} frames scored"
    print_scores(console, scores, f"{title}\nreference: {name}", 1)
    served = np.array(stored.revisions) >= 0
    ious: dict[str, NDArray[np.float64]] = {
        m: np.where(served | (m == "teacher"), ring_ious(list(stored.maps[m]), reference), np.nan)
        for m in METHODS
    }
    stages = by_stage(ious, stored.revisions, scored)
    ious |= {label: ring_ious(maps, reference) for label, maps in list(cheap.items())[:2]}
    panels = [
        Panel(i, material.frames[i], _masks_of(stored, i), reference[i])
        for i in options.stages
        if i < n
    ]
    path = demo.output / "report.png"
    draw_report(path, title, panels, ious, stages, options.stages)
    console.print(f"account: {stored.account}")
    console.print(f"picture: [bold]{path}[/]")
    return bool(stored.account["written"] == n)


def _score(method: str, stored: Stored, reference: list[ClassMap], scored: list[int]) -> Score:
    """Score one kind of mask where there is one: before the first student only the teacher's."""
    there = [i for i in scored if method == "teacher" or stored.revisions[i] >= 0]
    name = method
    if len(there) < len(scored):
        name = f"{method} (the {len(there)} frames that have one)"
    return score(name, [list(stored.maps[method])], reference, there)


def _masks_of(stored: Stored, index: int) -> dict[str, ClassMap]:
    present = METHODS if stored.revisions[index] >= 0 else METHODS[:1]
    return {m: stored.maps[m][index] for m in present}


def _say_where(server: EmbeddedTiled, profile: Profile, stored: Stored, demo: Demo) -> None:
    container = profile.tiled.container
    console.print(
        f"\nderived run [bold]{_address(server, container, stored.uid)}[/]", highlight=False
    )
    if demo.serve:
        _wait_for_interrupt(server, container)
        return
    folder = demo.output / "tiled"
    console.print("the server ends now and the masks stay; read them with")
    _print(
        "    from ptychoseg_stream.sinks.embedded import EmbeddedTiled\n"
        f'    with EmbeddedTiled("{folder}") as server:\n'
        f'        masks = server.client()["{container}/{stored.uid}/primary/mask"].read()'
    )
    console.print(f"or serve them to any Tiled client: [bold]{_command()} serve {folder}[/]")


def _address(server: EmbeddedTiled, container: str, uid: str) -> str:
    return f"{server.uri}/api/v1/metadata/{container}/{uid}"


def _command() -> str:
    """Return how `ptychoseg` is called here: its folder may not be on the PATH."""
    beside = Path(sys.executable).with_name("ptychoseg")
    found = shutil.which("ptychoseg")
    if found and Path(found) == beside:
        return "ptychoseg"
    with contextlib.suppress(ValueError):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)


def _print(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_snippet(server: EmbeddedTiled, container: str, uid: str) -> None:
    _print(
        "    from tiled.client import from_uri\n"
        f'    run = from_uri("{server.uri}", api_key="{server.api_key}")["{container}/{uid}"]\n'
        '    masks = run["primary/mask"].read()    # (frames, rows, columns) uint8 class codes'
    )


def _wait_for_interrupt(server: EmbeddedTiled, container: str) -> None:
    runs: Any = server.client()[container]
    uids = list(runs.keys())
    console.print(f"\nserving {len(uids)} derived runs at {server.uri} until Ctrl-C")
    if uids:
        _print_snippet(server, container, uids[-1])
    try:
        while True:
            time.sleep(1.0)
    except KeyboardInterrupt:
        console.print("bye")
