"""What to simulate: the options of the gold-ball scan."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from .optics import Pupil

SHAPE = (104, 104)
PUPIL = Pupil()


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldBalls:
    """What to simulate; the defaults are the clean scan.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns of the scan.
    n_frames : int, optional
        Only the first so many points of the grid.
    step : float
        Between two points [m].
    jitter : float
        How far a point may lie from its place in the grid, along either axis [m]; an exact grid
        leaves its own pattern in a reconstruction.
    seed : int
        Of the sample, the detector and the noise.
    dose : float
        Photons per frame without a sample.
    flux_noise : float
        Standard deviation of a frame's dose, relative to it.
    strong : bool
        A thicker and denser sample that clearly modulates the ring.
    pupil : Pupil
        The beam.
    drift : tuple of float
        How far the beam moves over the scan, rows and columns [px].
    drift_path : tuple of tuple of float
        Where the beam is at each frame [px], in place of a straight `drift`.
    change_at : int
        First frame at which `dose_factor` and `ring_scale` hold.
    dose_factor, ring_scale : float
        Factors on the dose and on the radii of the ring.
    read_noise, dark_pattern : float
        Standard deviations of the read noise and of a fixed pattern [photons].
    hot_pixels : int
        Number of pixels that always read `hot_value`.
    hot_value : float
        In detector units.
    dead_pixels : int
        Number of pixels that never count.
    cosmics : float
        Mean number of cosmic-ray tracks in a frame.
    cosmic_length : float
        Mean length of a track [px].
    cosmic_energy : float
        Median of what a track leaves [photons per px of its path].
    gap_width : int
        Rows without a sensor, across the frame below the beam, marked with the largest number of
        uint16, or NaN.
    saturation : float, optional
        Largest value that is read [detector units]; None for that of `dtype`.
    arm_width : float
        Width of a beam-stop arm that reaches to the beam [px]; 0 for none.
    arm_transmission : float
        Part of the beam that the arm lets through.
    arm_angle : float
        Where the arm comes from: 0 right, 90 top [degrees].
    stray : float
        Stray light, a wide halo around the frame's middle, relative to the dose.
    glow : float
        Light that does not come from the beam, at its brightest in the frame's first corner
        [photons per pixel and frame].
    gain, pedestal : float
        Detector units per photon; offset of every pixel [detector units].
    dtype : {"uint16", "float32"}
        Of the frames; float32 is neither rounded nor clipped.
    keep_signal : bool
        Whether the scan holds the expected photons, too.

    Raises
    ------
    ValueError
        A value that makes no sense; the text names it.
    """

    grid: tuple[int, int] = (40, 40)
    n_frames: int | None = None
    step: float = 30e-9
    jitter: float = 0.0
    seed: int = 0
    dose: float = 3.75e5
    flux_noise: float = 0.0
    strong: bool = False
    pupil: Pupil = PUPIL
    drift: tuple[float, float] = (0.0, 0.0)
    drift_path: tuple[tuple[float, float], ...] = ()
    change_at: int = 0
    dose_factor: float = 1.0
    ring_scale: float = 1.0
    read_noise: float = 0.7
    dark_pattern: float = 0.15
    hot_pixels: int = 0
    hot_value: float = 60000.0
    dead_pixels: int = 0
    cosmics: float = 0.0
    cosmic_length: float = 6.0
    cosmic_energy: float = 60.0
    gap_width: int = 0
    saturation: float | None = None
    arm_width: float = 0.0
    arm_transmission: float = 0.0
    arm_angle: float = 90.0
    stray: float = 0.0
    glow: float = 0.0
    gain: float = 1.0
    pedestal: float = 0.0
    dtype: Literal["uint16", "float32"] = "uint16"
    keep_signal: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        points = prod(self.grid)
        if min(self.grid) < 1:
            raise ValueError(f"grid: {self.grid} has no points, give at least (1, 1)")
        if self.n_frames is not None and not 1 <= self.n_frames <= points:
            raise ValueError(
                f"n_frames: {self.n_frames} of a grid of {points} points; "
                f"give 1..{points} or a larger grid"
            )
        if self.drift_path and len(self.drift_path) != self.length:
            raise ValueError(
                f"drift_path: {len(self.drift_path)} places for {self.length} frames; give one each"
            )
        for name in ("hot_pixels", "dead_pixels"):
            if not 0 <= getattr(self, name) <= prod(SHAPE):
                raise ValueError(f"{name}: {getattr(self, name)} of {prod(SHAPE)} pixels")
        for name in ("step", "dose", "dose_factor", "ring_scale", "gain", "cosmic_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be above 0")
        for name in ("jitter", "cosmics", "cosmic_energy", "gap_width", "stray", "glow"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} must not be below 0")

    @property
    def length(self) -> int:
        """Number of frames."""
        return prod(self.grid) if self.n_frames is None else self.n_frames
