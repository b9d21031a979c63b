"""The commands about nodes and their runs: run, replay, follow, audit, doctor, upload."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

ProfileName = Annotated[str, typer.Option("--profile", help="Name or file of a profile.")]


def run(
    source: Annotated[
        str,
        typer.Option(
            help="Where documents come from: zmq://HOST:PORT (the proxy's out port), "
            "kafka://BROKER:9092/TOPIC, tiled://HOST:PORT/CONTAINER."
        ),
    ],
    profile: ProfileName = "beamline",
    seconds: Annotated[float, typer.Option(min=0.0, help="End after so long; 0: never.")] = 0.0,
) -> None:
    """Label what a source delivers, in a process of its own, until Ctrl-C or SIGTERM.

    Runs that are open then are gone on with when it is started again with the same profile. Masks
    that Tiled did not take wait on this disk, safe; a line says so.

    Exits with 1 if masks are not safe, or the source was lost for good.

    Next: `ptychoseg doctor --source ADDRESS` if nothing arrives; `ptychoseg audit RUN` afterwards.
    """
    from .ingest import run_node

    complete = run_node(source, profile, seconds)
    raise typer.Exit(0 if complete else 1)


def replay(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="tiled://HOST:PORT/CONTAINER or .../uid; or files of documents (.jsonl, "
            ".msgpack), files of frames (CXI, NeXus, HDF5, npy; FILE:/dataset), folders of them."
        ),
    ],
    profile: ProfileName = "beamline",
    pace: Annotated[
        str, typer.Option(help='Of files: "" full speed, "recorded", or frames per second.')
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="Of files: first so many frames a run.")] = 0,
    since: Annotated[
        str, typer.Option(help="Runs of Tiled that began since: 2026-11-01, or 2h, 3d ago.")
    ] = "",
    until: Annotated[str, typer.Option(help="Runs of Tiled that began before.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Runs of Tiled with key=value in their start document.")
    ] = None,
) -> None:
    """Label recorded runs as if they were taken now; masks go where the profile says.

    Exits with 1 if masks wait for Tiled, something was left out, or it was broken off.

    Next: `ptychoseg audit RUN` counts again what was stored.
    """
    from .ingest import ReplayArguments
    from .ingest import replay as replay_runs

    arguments = ReplayArguments(targets, profile, pace, limit, since, until, where or ())
    complete = replay_runs(arguments)
    raise typer.Exit(0 if complete else 1)


def audit(
    run: Annotated[
        str,
        typer.Argument(
            help="Address of a derived run in Tiled, its uid or that of the raw run, an HDF5 file, "
            "or the folder of a demo (its newest run)."
        ),
    ],
    profile: ProfileName = "beamline",
) -> None:
    """Count a stored run again: rows, arrays, account, the raw run's own counts.

    Exits with 1 if something does not add up.

    Next: `ptychoseg replay` the raw run to label what was missed.
    """
    from .inspection import audit_run

    raise typer.Exit(0 if audit_run(run, profile) else 1)


def doctor(
    profile: ProfileName = "beamline",
    source: Annotated[
        str, typer.Option(help="Also check this source, as of `ptychoseg run`.")
    ] = "",
) -> None:
    """Check a profile against the world: Tiled and its key, disks, folders, sources, GPU.

    Exits with 1 if something does not work.

    Next: do what the lines say, and `RE.subscribe(attach("my.yml"))` or `ptychoseg run`.
    """
    from .inspection import check_profile

    raise typer.Exit(0 if check_profile(profile, source) else 1)


def upload(
    profile: ProfileName = "beamline",
    seconds: Annotated[float, typer.Option(min=0.0, help="Try for so long.")] = 60.0,
) -> None:
    """Bring the masks that wait on this machine's disk to Tiled; nodes do so by themselves.

    Exits with 1 if some still wait.
    """
    from .inspection import upload_waiting

    raise typer.Exit(0 if upload_waiting(profile, seconds) else 1)


def follow(
    address: Annotated[
        str,
        typer.Argument(
            help="zmq://HOST:PORT (a node's feed), pub://HOST:PORT, or the address of a derived "
            "run in Tiled."
        ),
    ],
    uid: Annotated[
        str, typer.Option("--run", help="Uid of the raw or derived run; default: the open one.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
    profile: ProfileName = "beamline",
) -> None:
    """Print a line for all that is told of a run, until its end.

    The profile names the environment variable with the key of Tiled. Exits with 1 if something was
    lost.

    Next: the same in Python, `from ptychoseg_stream.feed import follow`.
    """
    from .inspection import follow_run

    follow_run(address, uid, json, profile)


NODE_COMMANDS: tuple[Callable[..., Any], ...] = (run, replay, follow, audit, doctor, upload)
"""In the order of the help."""
