"""A stack of frames as a detector plays it: one after the other, and a clear end."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError


class Frames(Protocol):
    """A stack of frames: an array, an h5py dataset, a `FrameStack`, ..."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a frame."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return frame `index`, ``(H, W)``."""
        ...


class Playback:
    """Plays a stack; reads one frame at a time and never the whole stack.

    Parameters
    ----------
    frames : Frames
        ``(N, H, W)`` of any real dtype.
    owner : str
        The detector, for messages.
    loop : bool
        Begin again after the last frame.

    Raises
    ------
    DatasetError
        `frames` is not a stack.
    """

    def __init__(self, frames: Frames, owner: str, loop: bool = False) -> None:
        """Take the stack; nothing is read yet."""
        if len(frames.shape) != 3 or 0 in frames.shape:
            raise DatasetError(
                f"{owner}: cannot play frames of shape {frames.shape}; "
                "give a stack of (frames, height, width)"
            )
        self._frames = frames
        self._owner = owner
        self._loop = loop
        self.index = 0

    @property
    def frame_shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return self._frames.shape[1], self._frames.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a frame."""
        return self._frames.dtype

    def require(self, count: int) -> None:
        """Make sure that `count` more frames can be played.

        Raises
        ------
        DatasetError
            They cannot; the text names the first frame that is missing.
        """
        n = self._frames.shape[0]
        if not self._loop and self.index + count > n:
            raise DatasetError(
                f"{self._owner}: no frame {max(self.index, n)}, the stack has {n} (0 to {n - 1}); "
                "scan fewer points, stage the detector again, or play it with loop=True"
            )

    def next(self) -> NDArray[Any]:
        """Return a copy of the next frame, ``(H, W)``; nobody else holds it.

        Raises
        ------
        DatasetError
            There is none, or it cannot be read.
        """
        self.require(1)
        number = self.index % self._frames.shape[0]
        try:
            image = np.array(self._frames[number])
        except (OSError, RuntimeError, ValueError) as error:  # h5py raises any of them
            raise DatasetError(f"{self._owner}: cannot read frame {number} ({error})") from error
        self.index += 1
        return image

    def rewind(self) -> None:
        """Go back to frame 0."""
        self.index = 0
