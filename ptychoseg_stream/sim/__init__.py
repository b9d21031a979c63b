"""Ring 2: the simulated experiment: optics, detectors, plans."""

from .detection import thin
from .gold_balls import GoldBalls, Scan, simulate

__all__ = ["GoldBalls", "Scan", "simulate", "thin"]
