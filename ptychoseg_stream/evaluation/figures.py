"""An evaluation as plain numbers: what ``--json`` writes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..node.options import NodeOptions
from .evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class About:
    """What was evaluated, and how.

    Parameters
    ----------
    frames : str
        Name of the stack.
    shape : tuple of int
        ``(n, h, w)``.
    dtype : str
    reference : str
        What masks are compared with.
    seeds : tuple of int
    options : NodeOptions
    version : str
        Of this package.
    command : str
        Command line that does it again.
    """

    frames: str
    shape: tuple[int, ...]
    dtype: str
    reference: str
    seeds: tuple[int, ...]
    options: NodeOptions
    version: str
    command: str


def figures(about: About, outcome: Evaluation, worst: int = 6) -> dict[str, Any]:
    """Return all figures as what JSON can hold; what is not a number is None.

    Parameters
    ----------
    about : About
    outcome : Evaluation
    worst : int
        How many of the worst frames are named.
    """
    everything = {
        **asdict(about),
        "scored": len(outcome.scored),
        "scored_frames": outcome.scored,
        "staged": outcome.staged,
        "refused": {i: outcome.masks[i].reason for i in outcome.refused},
        "best_baseline": outcome.best_baseline,
        "scores": [asdict(score) for score in outcome.scores],
        "stages": [{"revision": r, "frames": n, "ring": m} for r, n, m in outcome.stages],
        "worst": outcome.worst(worst),
        "ious": outcome.ious,
    }
    return {key: plain(value) for key, value in everything.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: NaN and infinity become None, arrays lists."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
