"""The command about reconstruction."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_node import ProfileName


def reconstruct(
    follow: Annotated[
        str,
        typer.Option(
            help="A run while it is labelled: zmq://HOST:PORT or pub://HOST:PORT (a node's feed), "
            "or the address of its derived run in Tiled."
        ),
    ] = "",
    file: Annotated[Path | None, typer.Option(help="Or a CXI file, such as an exported run.")] = (
        None
    ),
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Picture that is written again and again.")
    ] = Path("reconstruction.png"),
    run: Annotated[str, typer.Option(help="Uid of the run to follow; default: the next.")] = "",
    epochs: Annotated[
        int, typer.Option(min=0, help="Of a file: 40. Live: after the run has ended; 10.")
    ] = 0,
    ring_first: Annotated[
        int, typer.Option(min=0, help="First so many epochs see ring and core only.")
    ] = 0,
    weights: Annotated[
        bool, typer.Option("--weights", help="Pixels count by signal over signal and background.")
    ] = False,
    defocus: Annotated[
        float, typer.Option(help="Distance of the sample from the focus, in metres.")
    ] = 0.0,
    object_pixel: Annotated[
        float, typer.Option(min=0.0, help="In metres; default: from wavelength and geometry.")
    ] = 0.0,
    profile: ProfileName = "beamline",
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Whether a live run goes to Tiled, too.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the order of the frames.")] = 0,
) -> None:
    """Reconstruct object and probe while frames arrive; needs the extra `recon`.

    Uses the validity of each frame, the background and the pupil that the node found. Exits with 1
    if Tiled does not have the last version.

    Next: look at the picture; `--ring-first 4` shows more early, `--defocus` if it stays blurred.
    """
    from .recon.toolkit import cdtools

    cdtools()  # first of all: what is missing is told at once
    from .reconstruction import ReconstructArguments, run_reconstruction

    complete = run_reconstruction(
        ReconstructArguments(
            follow,
            file,
            output,
            run,
            epochs,
            ring_first,
            weights,
            defocus,
            object_pixel,
            profile,
            store,
            seed,
        )
    )
    raise typer.Exit(0 if complete else 1)
