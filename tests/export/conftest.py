"""Scans with everything that may be wrong, and cdtools where it is installed."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptychoseg_stream.sim import GoldBalls, Scan, simulate


@pytest.fixture(scope="session")
def spoiled() -> Scan:
    """Six frames with hot and dead pixels, a gap, a stop, cosmic rays and stray light."""
    return simulate(
        GoldBalls(
            grid=(2, 3),
            step=80e-9,
            strong=True,
            hot_pixels=12,
            dead_pixels=8,
            gap_width=2,
            cosmics=4.0,
            arm_width=3.0,
            stray=0.02,
            glow=0.5,
        )
    )


@pytest.fixture(scope="session")
def cdtools() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what matplotlib is about to drop
        return pytest.importorskip("cdtools")


@pytest.fixture(scope="session")
def from_cxi(cdtools: Any) -> Callable[[Path], Any]:
    """The reader of cdtools."""

    def read(path: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its own way of calling numpy
            return cdtools.datasets.Ptycho2DDataset.from_cxi(path)

    return read
