"""cdtools, the optional engine: the one place where it is imported.

cdtools has no types; what the rest of the package needs of it is named here.
"""

import importlib
import warnings
from typing import Any

from ..errors import ExtraMissing

HINT = "run: pip install 'ptychoseg_stream[recon]'"


def cdtools() -> Any:
    """Return the package cdtools.

    Raises
    ------
    ExtraMissing
        If it is not installed; the text says what to run.
    """
    with warnings.catch_warnings():
        # cdtools 0.3.2 makes its colour maps in a way that Matplotlib 3.11 calls deprecated.
        warnings.filterwarnings("ignore", message="Passing 'N' to ListedColormap is deprecated")
        try:
            return importlib.import_module("cdtools")
        except ModuleNotFoundError as error:
            if error.name != "cdtools":
                raise
            raise ExtraMissing(f"reconstruction needs cdtools-py; {HINT}") from None
