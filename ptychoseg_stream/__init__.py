"""Labels every pixel of every diffraction frame while the scan runs, and writes masks to Tiled.

``RE.subscribe(attach("demo"))`` is the whole attachment to a RunEngine.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assemble import attach

__all__ = ["attach"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import `attach` when it is asked for: it brings torch and Tiled along."""
    if name == "attach":
        from .assemble import attach

        return attach
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
