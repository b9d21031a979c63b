"""Skips all of it where the extra is not installed; makes the small scan once."""

import pytest

pytest.importorskip("ptychoseg_stream.recon.toolkit").cdtools()

from recon_support import Small, make_small


@pytest.fixture(scope="session")
def small() -> Small:
    return make_small()
