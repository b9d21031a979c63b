"""Detectors that play a stack of frames as a beamline's would.

`PlayedDetector` (ophyd) puts the image into the Event; `PlayedHDF5Detector` (ophyd-async) writes a
file and announces what is in it.

A repeated point (pause and resume) is a new exposure, for which both play on: frame i of the stack
is always row i of the raw array.
"""

import threading
from typing import Any, cast

from ophyd import Component, Device, DeviceStatus, Signal

from ..errors import DatasetError
from .hdf5_detector import PlayedHDF5Detector
from .playback import Frames, Playback

__all__ = ["PlayedDetector", "PlayedHDF5Detector"]


class ImageSignal(Signal):  # pyright: ignore[reportUntypedBaseClass]
    """Holds the last image and describes it even before the first."""

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data key; shape and dtype are those of the stack."""
        playback = cast("PlayedDetector", self.parent).playback
        return {
            self.name: {
                "source": self.source_name,
                "dtype": "array",
                "shape": list(playback.frame_shape),
                "dtype_numpy": playback.dtype.str,
            }
        }


class PlayedDetector(Device):  # pyright: ignore[reportUntypedBaseClass]
    """An ophyd detector with the image in the Event, data key ``<name>_image``.

    Parameters
    ----------
    frames : Frames
        ``(N, H, W)`` of any real dtype: an array, an h5py dataset, a frame stack.
    name : str
        Of the device.
    exposure : float
        From trigger to image [s]; also the configuration signal ``<name>_exposure``.
    rewind_on_stage : bool
        Begin every scan with frame 0.
    loop : bool
        Begin again after the last frame; without it the scan fails there.

    Raises
    ------
    DatasetError
        `frames` is not a stack; from `trigger`, it has no more frames.
    """

    image: Any = Component(ImageSignal, value=None, kind="normal")
    exposure: Any = Component(Signal, value=0.0, kind="config")

    def __init__(
        self,
        frames: Frames,
        *,
        name: str,
        exposure: float = 0.0,
        rewind_on_stage: bool = True,
        loop: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take the stack; nothing is read yet."""
        self.playback = Playback(frames, name, loop)
        self._rewind_on_stage = rewind_on_stage
        self._running: tuple[threading.Timer, DeviceStatus] | None = None
        super().__init__(name=name, **kwargs)
        self.exposure.put(exposure)

    def stage(self) -> list[object]:
        """Get ready for a scan."""
        if self._rewind_on_stage:
            self.playback.rewind()
        return super().stage()

    def unstage(self) -> list[object]:
        """End a scan; an exposure that still runs is given up."""
        self.stop()
        return super().unstage()

    def trigger(self) -> DeviceStatus:
        """Begin an exposure; a timer ends it, so the RunEngine's thread never waits here."""
        self.playback.require(1)
        status = DeviceStatus(self)
        seconds = float(self.exposure.get())
        if seconds > 0:
            timer = threading.Timer(seconds, self._read_out, (status,))
            timer.daemon = True
            self._running = (timer, status)
            timer.start()
        else:
            self._read_out(status)
        return status

    def stop(self, *, success: bool = False) -> None:
        """Give up a running exposure; its frame is played next."""
        if self._running is None:
            return
        (timer, status), self._running = self._running, None
        if timer is threading.current_thread():  # a failed status stops its device
            return
        timer.cancel()
        timer.join()
        if not status.done:
            status.set_exception(RuntimeError(f"{self.name}: stopped during an exposure"))

    def _read_out(self, status: DeviceStatus) -> None:
        failure: Exception | None = RuntimeError(f"{self.name}: no image; the log says why")
        try:
            self.image.put(self.playback.next())
            failure = None
        except DatasetError as error:
            failure = error
        finally:  # a status that nobody ends would hold the scan for ever
            if failure is None:
                status.set_finished()
            else:
                status.set_exception(failure)
