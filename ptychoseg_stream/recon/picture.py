"""What a reconstruction looks like, as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Complex = NDArray[np.complexfloating]


def draw(
    path: Path, obj: Complex, probe: Complex, losses: Sequence[float], title: str = ""
) -> None:
    """Draw phase and amplitude of the object, the probe, and the error over the epochs.

    Parameters
    ----------
    path : Path
        PNG; appears whole or not at all.
    obj : ndarray of complex
        ``(h, w)``.
    probe : ndarray of complex
        ``(modes, H, W)``; the first is drawn.
    losses : sequence of float
        One per epoch.
    title : str
    """
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    phase, amplitude, light, error = figure.subplots(1, 4)
    flat = without_ramp(obj)
    _image(phase, np.angle(flat), "phase of the object [rad]", "gray")
    _image(amplitude, np.abs(flat), "amplitude of the object", "gray")
    _image(light, np.abs(probe[0]), "amplitude of the probe", "magma")
    error.semilogy(np.arange(1, len(losses) + 1), losses, color="#0072b2")
    error.set_xlabel("epoch")
    error.set_title("error of the amplitudes", fontsize=9)
    error.grid(alpha=0.25)
    error.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_ways(path: Path, images: Mapping[str, tuple[Complex, str]], columns: int = 4) -> None:
    """Draw the phases of some objects beside each other, on one scale.

    Parameters
    ----------
    path : Path
        PNG.
    images : mapping
        Object ``(h, w)`` and a line below its name, by name. The first sets the scale.
    columns : int
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    first = np.angle(next(iter(images.values()))[0])
    low, high = (float(np.quantile(first, q)) for q in (0.01, 0.99))
    for place in axes:
        place.axis("off")
    for place, (name, (image, note)) in zip(axes, images.items(), strict=False):
        place.imshow(np.angle(image), cmap="gray", vmin=low, vmax=high)
        place.set_title(f"{name}\n{note}", fontsize=9)
    _save(figure, path)


def without_ramp(obj: Complex) -> Complex:
    """Remove the mean phase, and the mean slope of the phase, of ``(h, w)``."""
    flat = obj
    for axis in (0, 1):
        ahead, behind = np.moveaxis(flat, axis, 0)[1:], np.moveaxis(flat, axis, 0)[:-1]
        slope = np.angle((ahead * behind.conj()).sum())
        along = np.arange(obj.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
        flat = flat * np.exp(-1j * slope * along)
    return flat * np.exp(-1j * np.angle(flat.sum()))


def _image(axes: Axes, values: NDArray[np.floating], title: str, colors: str) -> None:
    """Draw without the extremes: pixels that no light reached hold anything."""
    low, high = (float(np.quantile(values, q)) for q in (0.02, 0.98))
    axes.imshow(values, cmap=colors, vmin=low, vmax=high)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    figure.savefig(partial, dpi=110, format="png")
    partial.replace(path)
