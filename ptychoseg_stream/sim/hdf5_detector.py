"""An ophyd-async detector that plays frames into an HDF5 file in SWMR mode.

Readers may follow the file while it grows. Documents are what ophyd-async makes of a real area
detector: one stream_resource per file, stream_datum as frames appear.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    PathProvider,
    StandardDetector,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    TriggerInfo,
    soft_signal_r_and_setter,
)

from .playback import Frames, Playback

DATASET = "/entry/data/data"


class FrameFile:
    """An HDF5 file that grows by a frame at a time and can be read meanwhile.

    Parameters
    ----------
    path : Path
        Where; the folder is made if it does not exist.
    shape : tuple of int
        ``(H, W)``.
    dtype : dtype
        Of the frames.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: Any) -> None:
        """Make the file, with no frames yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = h5py.File(path, "w", libver="latest")
        data = self._file.create_group("entry/data")
        self._frames = data.create_dataset(
            "data", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape)
        )
        # The NeXus attributes by which a reader finds the frames; SWMR allows none afterwards.
        self._file.attrs["default"] = "entry"
        self._file["entry"].attrs.update({"NX_class": "NXentry", "default": "data"})
        data.attrs.update({"NX_class": "NXdata", "signal": "data"})
        self._file.swmr_mode = True

    def append(self, image: NDArray[Any]) -> int:
        """Write a frame where readers see it; return how many there are now."""
        count = self._frames.shape[0] + 1
        self._frames.resize(count, axis=0)
        self._frames[count - 1] = image
        self._frames.flush()
        return count

    def close(self) -> None:
        """Close it for good."""
        self._file.close()


class _Camera:
    """What the three logics of the detector share: the playback and the file."""

    def __init__(self, playback: Playback, exposure: float, rewind_on_stage: bool) -> None:
        self.playback = playback
        self.default_period = exposure
        self.rewind_on_stage = rewind_on_stage
        self.period = exposure
        self.count = 1
        self.task: asyncio.Task[None] | None = None
        self.file: FrameFile | None = None
        self.written, self.set_written = soft_signal_r_and_setter(int)

    async def acquire(self) -> None:
        """Play `count` frames, one per period."""
        assert self.file is not None, "prepare_unbounded opens the file before frames are taken"
        clock = asyncio.get_running_loop().time
        start = clock()
        for i in range(1, self.count + 1):
            # Due times do not add up the time that writing takes.
            await asyncio.sleep(max(start + i * self.period - clock(), 0.0))
            self.set_written(self.file.append(self.playback.next()))


class _Trigger(DetectorTriggerLogic):
    def __init__(self, camera: _Camera) -> None:
        self.camera = camera

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        self.camera.count = num
        self.camera.period = (livetime or self.camera.default_period) + deadtime

    async def default_trigger_info(self) -> TriggerInfo:
        return TriggerInfo()


class _Acquire(DetectorAcquireLogic):
    def __init__(self, camera: _Camera) -> None:
        self.camera = camera

    async def ensure_ready(self) -> None:
        await self.ensure_stopped()
        if self.camera.rewind_on_stage:
            self.camera.playback.rewind()

    async def start_acquiring(self) -> None:
        # Asked here and not in the task, whose error would surface only after a timeout.
        self.camera.playback.require(self.camera.count)
        self.camera.task = asyncio.create_task(self.camera.acquire())

    async def wait_for_idle(self) -> None:
        if self.camera.task is not None:
            await self.camera.task

    async def ensure_stopped(self) -> None:
        task, self.camera.task = self.camera.task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class _Data(DetectorDataLogic):
    def __init__(self, camera: _Camera, path_provider: PathProvider) -> None:
        self.camera = camera
        self.path_provider = path_provider

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        place = self.path_provider(datakey_name)
        filename = f"{place.filename}.h5"
        shape, dtype = self.camera.playback.frame_shape, self.camera.playback.dtype
        self.camera.file = FrameFile(Path(place.directory_path) / filename, shape, dtype)
        self.camera.set_written(0)
        frames = StreamResourceInfo(
            data_key=datakey_name,
            shape=shape,
            chunk_shape=(1, *shape),
            dtype_numpy=dtype.str,
            parameters={"dataset": DATASET},
        )
        return StreamResourceDataProvider(
            uri=f"{place.directory_uri}{filename}",
            resources=[frames],
            mimetype="application/x-hdf5",
            collections_written_signal=self.camera.written,
        )

    async def stop(self) -> None:
        if self.camera.file is not None:
            self.camera.file.close()
            self.camera.file = None

    def get_hinted_fields(self, datakey_name: str) -> Sequence[str]:
        return [datakey_name]


class PlayedHDF5Detector(StandardDetector):
    """An ophyd-async detector that writes the frames it plays to HDF5, data key ``<name>``.

    Steps (``trigger``) and fly scans (``prepare``, ``kickoff``, ``complete``) both work.

    Parameters
    ----------
    frames : Frames
        ``(N, H, W)`` of any real dtype: an array, an h5py dataset, a frame stack.
    path_provider : PathProvider
        Where files go.
    name : str
        Of the device.
    exposure : float
        From trigger to image [s], unless ``prepare`` asks for another.
    rewind_on_stage : bool
        Begin every scan with frame 0.
    loop : bool
        Begin again after the last frame; without it the scan fails there.

    Raises
    ------
    DatasetError
        `frames` is not a stack; from ``trigger`` or ``kickoff``, it has not enough frames left.
    """

    def __init__(
        self,
        frames: Frames,
        path_provider: PathProvider,
        *,
        name: str,
        exposure: float = 0.0,
        rewind_on_stage: bool = True,
        loop: bool = False,
    ) -> None:
        """Take the stack; nothing is read and no file opened yet."""
        camera = _Camera(Playback(frames, name, loop), exposure, rewind_on_stage)
        self.add_detector_logics(_Trigger(camera), _Acquire(camera), _Data(camera, path_provider))
        super().__init__(name=name)
