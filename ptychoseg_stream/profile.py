"""The settings of a beamline: one YAML file, validated; unknown keys are errors."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, get_type_hints

import yaml
from ptychoseg_callbacks.frames.options import FinderOptions
from ptychoseg_callbacks.queueing.waiting import OverloadOptions
from pydantic import TypeAdapter, ValidationError

from .errors import ProfileError
from .node.options import NodeOptions
from .node.spool import SpoolOptions
from .science.experiment import ExperimentOptions
from .science.frame import ClassCode
from .sinks.feed.options import FeedOptions
from .sinks.options import TiledOptions
from .sources.addresses import SourceOptions
from .sources.tiled.raw import RawOptions

EMBEDDED = "embedded"
"""As `tiled.uri`: a server of our own is started and ended with the attachment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All that a node has to know about a beamline.

    Parameters
    ----------
    name, description : str
        For people, and for the start document of derived runs.
    frames : FinderOptions
        Which images of a run are labelled, and how files are read.
    pixel_mask : str
        File of detector pixels that must never be used (npy, npz, HDF5; FILE or FILE:name), 0 for a
        good one as in NeXus; "" for none.
    experiment : ExperimentOptions
        Energy and geometry, for runs whose start document does not say them.
    node : NodeOptions
        How frames become masks and when the student learns.
    trainer : {"background", "inline"}
        Whether frames go on being labelled while a stage is learned (by the student before it), or
        wait for it (deterministic).
    own_process : bool
        Label in a process of its own, so that neither load nor a crash touches the scan.
    products_every : float
        Time between two looks at what a run says as a whole: background, pupil, maps [s]. The last
        comes at its end.
    batch : int
        Largest micro-batch of frames.
    overload : OverloadOptions
        What happens when frames come faster than they can be labelled.
    spool : SpoolOptions
        Disk of this machine, for what must outlive the node.
    idle_timeout : float
        A run without a stop document is closed as failed when no document came for so long [s].
    raw : RawOptions
        Tiled server of the raw runs, which fills gaps in what was received.
    sources : SourceOptions
        How `ptychoseg run` takes documents from 0MQ, Kafka and Tiled.
    tiled : TiledOptions
        Where masks go. `uri` "embedded" starts a server of our own, for trying things out.
    feed : FeedOptions
        Where frames and masks are told live.
    cache : str
        Folder of centroids and students; "~" is the home folder, "" keeps them in memory.
    """

    name: str = "unnamed"
    description: str = ""
    frames: FinderOptions = field(default_factory=FinderOptions)
    pixel_mask: str = ""
    experiment: ExperimentOptions = field(default_factory=ExperimentOptions)
    node: NodeOptions = field(default_factory=NodeOptions)
    trainer: Literal["background", "inline"] = "background"
    own_process: bool = True
    products_every: float = 5.0
    batch: int = 8
    overload: OverloadOptions = field(default_factory=OverloadOptions)
    spool: SpoolOptions = field(default_factory=SpoolOptions)
    idle_timeout: float = 86400.0
    raw: RawOptions = field(default_factory=RawOptions)
    sources: SourceOptions = field(default_factory=SourceOptions)
    tiled: TiledOptions = field(default_factory=TiledOptions)
    feed: FeedOptions = field(default_factory=FeedOptions)
    cache: str = "~/.cache/ptychoseg_stream"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.batch < 1:
            raise ProfileError(f"batch: {self.batch} must be 1 or more")
        if self.products_every < 0:
            raise ProfileError(f"products_every: {self.products_every} must be 0 or more seconds")
        if not self.idle_timeout > 0:
            raise ProfileError(f"idle_timeout: {self.idle_timeout} must be more than 0 seconds")


def profile_folders() -> list[Path]:
    """Return where profiles are looked for by name: your own folder first, then the shipped ones.

    ``$PTYCHOSEG_PROFILES`` (as many folders as wanted, separated like PATH), then the package.
    """
    own = [Path(p) for p in os.environ.get("PTYCHOSEG_PROFILES", "").split(os.pathsep) if p]
    package = Path(__file__).parent
    return [*own, package / "profiles", package.parent / "profiles"]


def list_profiles() -> dict[str, Path]:
    """Return the profiles that can be named, name -> file."""
    found: dict[str, Path] = {}
    for folder in profile_folders():
        for path in sorted(folder.glob("**/*.yml")):
            found.setdefault(path.stem, path)
    return found


def load_profile(what: "str | os.PathLike[str] | Profile") -> Profile:
    """Return a profile by name, from a YAML file, or as it is.

    Parameters
    ----------
    what : str, path or Profile
        A name that `list_profiles` knows, or a file.

    Raises
    ------
    ProfileError
        If there is no such profile, or it has an unknown key or a value that makes no sense.
    """
    if isinstance(what, Profile):
        return what
    path = _find(os.fspath(what))
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ProfileError(f"{path}: cannot be read as YAML: {reason}") from error
    return profile_from(data if data is not None else {}, str(path))


def profile_from(data: Any, origin: str) -> Profile:
    """Validate the plain data of a profile.

    Parameters
    ----------
    data : mapping
        As YAML or JSON gives it.
    origin : str
        Named in messages.

    Raises
    ------
    ProfileError
        As `load_profile`.
    """
    if not isinstance(data, dict):
        raise ProfileError(f"{origin}: a profile is a list of `key: value`, not {type(data)}")
    _refuse_unknown(data, Profile, origin, "")
    try:
        return TypeAdapter(Profile).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":  # of an options class: its text begins with the name
            message = first["msg"].removeprefix("Value error, ")
            raise ProfileError(f"{origin}: {key}.{message}") from error
        raise ProfileError(
            f"{origin}: {key}: {first['msg']} (given: {shortened(first.get('input')):.200})"
        ) from error
    except ProfileError as error:
        raise ProfileError(f"{origin}: {error}") from error


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = list_profiles()
    if name in known:
        return known[name]
    if path.suffix in (".yml", ".yaml") or len(path.parts) > 1:
        raise ProfileError(f"{path}: no such profile file")
    raise ProfileError(
        f"no profile {name!r}; there are {', '.join(sorted(known)) or 'none'} "
        "(`ptychoseg profiles` lists them), or give the path of a .yml file"
    )


def _refuse_unknown(data: Mapping[Any, Any], kind: Any, origin: str, at: str) -> None:
    known = {f.name for f in fields(kind)}
    types = get_type_hints(kind)
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ProfileError(f"{origin}: unknown key {at}{key}; {hint}")
        if is_dataclass(types[key]) and isinstance(value, dict):
            _refuse_unknown(value, types[key], origin, f"{at}{key}.")


def class_names() -> dict[int, str]:
    """Return the class codes with their names, for display."""
    return {int(code): code.name.lower().replace("_", "-") for code in ClassCode}
