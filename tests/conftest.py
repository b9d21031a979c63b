"""What the tests of several folders share: simulated scans, real data, one thread per library."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ptychoseg_stream.assemble import single_threaded
from ptychoseg_stream.science.som import Centroids
from ptychoseg_stream.sim import GoldBalls, Scan, simulate

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Escape what hostile documents brought into a log: it goes to another process as UTF-8."""
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_library() -> None:
    single_threaded()


@pytest.fixture(scope="session")
def scan() -> Scan:
    """The clean gold-ball scan, 30 frames."""
    return simulate(GoldBalls(n_frames=30))


@pytest.fixture(scope="session")
def strong() -> Scan:
    """A sample that modulates the ring, and a beam that drifts by 2.5 px, 30 frames."""
    return simulate(GoldBalls(n_frames=30, strong=True, drift=(2.0, -1.5)))


@pytest.fixture(scope="session")
def centroids(scan: Scan) -> Centroids:
    """Fitted on frame 0 of the clean scan with the defaults."""
    return Centroids.fit(scan.frames[0])


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a shared file by its path below the data folder, else skips the test."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.is_file():
            pytest.skip(f"the shared data are not there: {path}")
        return path

    return find
