"""The command `ptychoseg`. Heavy imports are inside the commands: `--help` answers at once."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from .cli_node import NODE_COMMANDS, ProfileName
from .cli_recon import reconstruct
from .errors import PtychosegError

P = ParamSpec("P")

EPILOG = (
    "Begin with `ptychoseg demo`. FRAMES is FILE or FILE:/path/of/dataset (HDF5, NeXus, CXI, npy), "
    "or sim, sim:strong, sim:drift (simulated). Exit codes: 0 all is well, 1 it ran but masks are "
    "missing or differ, 2 bad input (the message says what to do)."
)
app = typer.Typer(
    help="Labels every pixel of every diffraction frame while the scan runs; masks go to Tiled.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Frames = Annotated[str, typer.Argument(help="FILE, FILE:/dataset, sim, sim:strong or sim:drift")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="First so many frames; 0: all.")]


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Print an error made for the user as one line, and exit with its code, mostly 2."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except PtychosegError as error:
            typer.secho(f"ptychoseg: {error}", err=True, fg="red")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return wrapped


@app.command()
@reports_errors
def demo(
    frames: Annotated[
        str,
        typer.Option(help="What the detector plays: FILE:/dataset, sim, sim:strong, sim:drift."),
    ] = "sim:drift",
    count: Annotated[int, typer.Option(min=1, help="Number of points of the scan.")] = 150,
    exposure: Annotated[float, typer.Option(min=0.0, help="Of each point, in seconds.")] = 0.1,
    labels: Annotated[
        str, typer.Option(help="Reference labels; default: the truth, or half-maximum of the mean.")
    ] = "",
    trainer: Annotated[
        str, typer.Option(help="inline (deterministic) or background (no frame waits).")
    ] = "inline",
    output: Annotated[Path, typer.Option(help="Folder of report.png and of the masks.")] = Path(
        "demo-output"
    ),
    keep_serving: Annotated[
        bool, typer.Option("--serve", help="Go on serving the masks until Ctrl-C.")
    ] = False,
) -> None:
    """Scan simulated (or your) frames and watch the masks arrive in an embedded Tiled.

    Next: `ptychoseg evaluate FRAMES` for the figures, `ptychoseg profiles` to set up a beamline.
    """
    from .demo import Demo, run_demo

    complete = run_demo(Demo(frames, count, exposure, labels, trainer, output, keep_serving))
    raise typer.Exit(0 if complete else 1)


@app.command()
@reports_errors
def fit(
    frames: Frames,
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write.")] = Path(
        "centroids.h5"
    ),
    frame: Annotated[int, typer.Option(min=0, help="Frame that is fitted.")] = 0,
    profile: ProfileName = "beamline",
) -> None:
    """Fit the teacher's centroids on one frame and save them.

    Next: `ptychoseg evaluate OTHER_FRAMES --centroids FILE` to see how they label other data.
    """
    from .commands import fit_centroids

    fit_centroids(frames, output, frame, profile)


@app.command()
@reports_errors
def evaluate(
    frames: Frames,
    labels: Annotated[
        str,
        typer.Option(help="Reference class maps (npz, npy, h5); default: half-maximum of mean."),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds; figures are means.")] = 3,
    limit: Limit = 0,
    profile: ProfileName = "beamline",
    centroids: Annotated[
        Path | None, typer.Option(help="Also score the teacher with these centroids.")
    ] = None,
    dose: Annotated[
        float, typer.Option(min=1e-4, max=1.0, help="Also score it at this fraction of the counts.")
    ] = 1.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the slow baselines: clusters, random walker.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Report with the worst frames: .html (a page) or .png.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Write the served masks of the first seed to this HDF5.")
    ] = None,
) -> None:
    """Score teacher, student and fused masks next to the cheap ways of getting masks.

    Runs the very node that runs live, with inline training and centroids of its own: the masks are
    those of such a run, byte by byte.

    Next: `ptychoseg profiles` to set up a beamline with options that suit your frames.
    """
    from .commands import EvaluateArguments, evaluate_frames

    evaluate_frames(
        EvaluateArguments(
            frames, labels, seeds, limit, profile, centroids, dose, quick, report, json, masks
        )
    )


@app.command()
@reports_errors
def reproduce(
    run: Annotated[
        str,
        typer.Argument(
            help="Address of a derived run in Tiled, its uid or that of the raw run, an HDF5 file, "
            "or the folder of a demo (its newest run)."
        ),
    ],
    row: Annotated[int, typer.Option(min=0, help="Row that is made again.")] = 0,
    frames: Annotated[
        str, typer.Option(help="Raw frames, FILE:/dataset; default: where the run says.")
    ] = "",
    cache: Annotated[
        str, typer.Option(help="Folder of centroids and students; default: that of the run.")
    ] = "",
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Learn the students again, do not take kept ones.")
    ] = False,
    profile: ProfileName = "beamline",
) -> None:
    """Make one mask of a stored run again and compare it, bit by bit.

    Exits with 1 if it differs. The profile says which server a uid is looked up on.

    Next: `ptychoseg reproduce RUN --row N --retrain` learns even the student anew.
    """
    from .verify import ReproduceArguments, reproduce_row

    same = reproduce_row(ReproduceArguments(run, row, frames, cache, profile, retrain))
    raise typer.Exit(0 if same else 1)


@app.command()
@reports_errors
def export(
    run: Annotated[
        str,
        typer.Argument(
            help="Address of a derived run in Tiled, its uid or that of the raw run, an HDF5 file, "
            "or the folder of a demo (its newest run)."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="CXI file to write.")],
    frames: Annotated[
        str, typer.Option(help="Raw frames, FILE:/dataset; default: where the run says.")
    ] = "",
    positions: Annotated[
        str,
        typer.Option(help="Where the probe was, FILE:/dataset: (frames, 2), y and x, in metres."),
    ] = "",
    positions_unit: Annotated[
        str, typer.Option(help="Unit of --positions: m, mm, um or nm.")
    ] = "m",
    energy: Annotated[float, typer.Option(min=0.0, help="Photon energy in eV.")] = 0.0,
    distance: Annotated[
        float, typer.Option(min=0.0, help="From the sample to the detector, in metres.")
    ] = 0.0,
    pixel_size: Annotated[
        str, typer.Option(help="Of the detector in metres: one number, or y,x.")
    ] = "",
    ptychodus: Annotated[
        Path | None, typer.Option(help="Write patterns (.npz) and positions for ptychodus, too.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    no_raw: Annotated[
        bool, typer.Option("--no-raw", help="Leave out the frames as they were before repair.")
    ] = False,
    profile: ProfileName = "beamline",
) -> None:
    """Write frames, masks, background, positions and geometry of a run as one CXI file.

    cdtools, PtyPy, ptychodus and viewers of NeXus read it. Options count before what the run says;
    the profile says which server a uid is looked up on, and where raw runs are.

    Next: `silx view FILE`, or docs/how-to/feed-reconstruction-codes.md for each of the codes.
    """
    from .export.command import ExportArguments, export_run

    export_run(
        ExportArguments(
            run,
            output,
            frames,
            positions,
            positions_unit,
            energy,
            distance,
            pixel_size,
            ptychodus,
            force,
            not no_raw,
            profile,
        ),
        typer.echo,
    )


for command in (*NODE_COMMANDS, reconstruct):
    app.command()(reports_errors(command))


@app.command()
@reports_errors
def profiles(
    name: Annotated[str, typer.Argument(help="Show this one.")] = "",
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print every key with its default.")
    ] = False,
) -> None:
    """List the profiles, show one, or print all keys there are.

    Next: copy `beamline.yml`, change what differs, and `RE.subscribe(attach("my.yml"))`.
    """
    from .commands import show_profiles

    show_profiles(name, defaults)


@app.command()
@reports_errors
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder that a demo kept its masks in.")] = Path(
        "demo-output/tiled"
    ),
) -> None:
    """Serve the masks of an earlier demo again, until Ctrl-C.

    Next: paste the three lines it prints into another Python to read the masks.
    """
    from .demo import serve_again

    serve_again(folder)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Answer `--version`."""
    if version:
        from . import __version__

        typer.echo(f"ptychoseg_stream {__version__}")
        raise typer.Exit


def start(arguments: list[str] | None = None) -> Any:
    """Run the command; for ``python -m ptychoseg_stream``."""
    return app(arguments if arguments is not None else sys.argv[1:])
