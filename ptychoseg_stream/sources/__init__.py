"""Ring 2: where frames come from besides a live RunEngine."""

from .arrays.labels import read_labels
from .arrays.stack import FrameStack, open_stack

__all__ = ["FrameStack", "open_stack", "read_labels"]
