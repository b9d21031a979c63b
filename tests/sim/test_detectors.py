import subprocess
import sys
import threading

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky.utils import FailedStatus, RunEngineInterrupted
from event_model import DocumentNames, schema_validators
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider, UUIDFilenameProvider

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.sim.detectors import PlayedDetector, PlayedHDF5Detector
from ptychoseg_stream.sim.hdf5_detector import DATASET
from ptychoseg_stream.sim.plans import fly_frames, take_frames
from ptychoseg_stream.sources import open_stack


def stack(n=12, dtype=np.uint16, shape=(20, 24)):
    """Frames that cannot be taken for one another."""
    frames = np.random.default_rng(0).integers(0, 250, (n, *shape)).astype(dtype)
    frames[:, 0, 0] = np.arange(n)
    return frames


class Documents:
    def __init__(self):
        self.seen = []

    def __call__(self, name, doc):
        if name != "event":  # its schema knows no arrays
            schema_validators[DocumentNames[name]].validate(doc)
        self.seen.append((name, doc))

    def of(self, name):
        return [doc for kind, doc in self.seen if kind == name]

    def images(self, key="det_image"):
        return [doc["data"][key] for doc in self.of("event")]


def written(folder):
    (path,) = folder.glob("*.h5")
    return path


def hdf5_detector(frames, folder, **options):
    provider = StaticPathProvider(UUIDFilenameProvider(), folder)
    return PlayedHDF5Detector(frames, provider, name="det", **options)


# ---- image in the Event


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_events_hold_every_frame_unaltered_and_the_descriptor_describes_it(engine, dtype):
    frames, seen = stack(dtype=dtype), Documents()
    engine(take_frames(PlayedDetector(frames, name="det"), 12), seen)
    images = seen.images()
    assert len(images) == 12
    assert all(image.dtype == dtype for image in images)
    assert np.array_equal(images, frames)
    (descriptor,) = seen.of("descriptor")
    key = descriptor["data_keys"]["det_image"]
    assert (key["dtype"], key["shape"]) == ("array", [20, 24])
    assert np.dtype(key["dtype_numpy"]) == dtype
    assert "external" not in key


def test_a_lazy_stack_is_played_from_its_file(engine, tmp_path):
    frames, seen = stack(), Documents()
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["data"] = frames
    with open_stack(tmp_path / "frames.h5") as lazy:
        engine(take_frames(PlayedDetector(lazy, name="det"), 12), seen)
    assert np.array_equal(seen.images(), frames)


def test_writing_into_a_delivered_image_does_not_change_the_stack(engine):
    frames, seen = stack(), Documents()
    engine(take_frames(PlayedDetector(frames, name="det"), 2), seen)
    seen.images()[0][:] = 0
    assert np.array_equal(frames, stack())


def test_an_exposure_takes_place_beside_the_run_engine(engine):
    detector = PlayedDetector(stack(), name="det", exposure=0.01)
    seen = Documents()
    engine(take_frames(detector, 3), seen)
    assert np.array_equal(seen.images(), stack()[:3])
    (descriptor,) = seen.of("descriptor")
    assert descriptor["configuration"]["det"]["data"]["det_exposure"] == 0.01
    detector.exposure.put(60.0)
    status = detector.trigger()
    assert not status.done  # returned long before the minute is over
    detector.stop()
    assert isinstance(status.exception(timeout=1), RuntimeError)


def test_ending_a_scan_gives_up_a_running_exposure_and_leaves_no_thread():
    before = set(threading.enumerate())
    detector = PlayedDetector(stack(), name="det", exposure=60.0)
    detector.stage()
    status = detector.trigger()
    detector.unstage()
    assert status.done
    assert not status.success
    assert set(threading.enumerate()) <= before
    assert detector.playback.index == 0  # the frame was not used up


def test_every_scan_begins_with_frame_0_unless_told_otherwise(engine):
    for rewind, second in ((True, 0), (False, 3)):
        detector, seen = PlayedDetector(stack(), name="det", rewind_on_stage=rewind), Documents()
        engine(take_frames(detector, 3), seen)
        engine(take_frames(detector, 3), seen)
        assert [image[0, 0] for image in seen.images()] == [0, 1, 2, second, second + 1, second + 2]


def test_past_the_end_the_scan_fails_and_names_the_frame(engine):
    seen = Documents()
    with pytest.raises(DatasetError, match=r"det: no frame 4, the stack has 4 .*loop=True"):
        engine(take_frames(PlayedDetector(stack(4), name="det"), 6), seen)
    assert len(seen.images()) == 4
    assert seen.of("stop")[0]["exit_status"] == "fail"


def test_a_loop_begins_again_after_the_last_frame(engine):
    seen = Documents()
    engine(take_frames(PlayedDetector(stack(4), name="det", loop=True), 6), seen)
    assert [image[0, 0] for image in seen.images()] == [0, 1, 2, 3, 0, 1]


def test_a_file_that_was_closed_fails_the_trigger_in_place_of_hanging(engine, tmp_path):
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["data"] = stack()
    with open_stack(tmp_path / "frames.h5") as lazy:
        detector = PlayedDetector(lazy, name="det", exposure=0.001)
    with pytest.raises(FailedStatus) as caught:
        engine(take_frames(detector, 1))
    assert "frames.h5:/data: cannot read frame 0" in str(caught.value.__cause__)


@pytest.mark.parametrize("shape", [(20, 24), (0, 20, 24), (2, 3, 20, 24)])
def test_what_is_no_stack_is_refused(shape):
    with pytest.raises(DatasetError, match="det: cannot play frames of shape"):
        PlayedDetector(np.zeros(shape), name="det")


def interrupted(detector, n, every, pause_at):
    """A scan with a checkpoint at every so many points and one pause."""

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan():
        paused = False
        for i in range(n):
            if i % every == 0:
                yield from bps.checkpoint()
            yield from bps.trigger_and_read([detector])
            if i == pause_at and not paused:
                paused = True
                yield from bps.pause()

    return plan()


def test_after_a_pause_and_rewind_frames_go_on_in_order(engine):
    frames, seen = stack(), Documents()
    with pytest.raises(RunEngineInterrupted):
        engine(interrupted(PlayedDetector(frames, name="det"), 9, 3, 4), seen)
    engine.resume()
    assert [doc["seq_num"] for doc in seen.of("event")] == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9]
    assert np.array_equal(seen.images(), frames[:11])


# ---- frames in a file


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_the_file_of_a_step_scan_holds_every_frame_unaltered(engine, tmp_path, dtype):
    frames, seen = stack(dtype=dtype), Documents()
    engine(take_frames(hdf5_detector(frames, tmp_path), 12), seen)
    with h5py.File(written(tmp_path)) as file:
        assert file[DATASET].dtype == dtype
        assert np.array_equal(file[DATASET], frames)
    (resource,) = seen.of("stream_resource")
    assert resource["mimetype"] == "application/x-hdf5"
    assert resource["uri"].startswith("file://localhost/")
    assert resource["uri"].endswith(written(tmp_path).name)
    assert resource["parameters"] == {"dataset": DATASET, "chunk_shape": (1, 20, 24)}
    assert [doc["indices"]["start"] for doc in seen.of("stream_datum")] == list(range(12))
    assert all("det" not in doc["data"] for doc in seen.of("event"))
    key = seen.of("descriptor")[0]["data_keys"]["det"]
    assert key["external"] == "STREAM:"
    assert key["shape"] == [1, 20, 24]
    assert np.dtype(key["dtype_numpy"]) == dtype


def test_a_fly_scan_writes_every_frame_and_no_event(engine, tmp_path):
    frames, seen = stack(), Documents()
    engine(fly_frames(hdf5_detector(frames, tmp_path), 12, livetime=0.002, period=0.01), seen)
    assert seen.of("event") == []
    announced = [doc["indices"] for doc in seen.of("stream_datum")]
    assert [i for r in announced for i in range(r["start"], r["stop"])] == list(range(12))
    with h5py.File(written(tmp_path)) as file:
        assert np.array_equal(file[DATASET], frames)


def test_another_process_reads_announced_frames_while_the_file_grows(engine, tmp_path):
    frames, read = stack(), []
    code = (
        "import sys, h5py\n"
        "with h5py.File(sys.argv[1], 'r', libver='latest', swmr=True) as f:\n"
        f"    sys.stdout.buffer.write(f['{DATASET}'][:].tobytes())\n"
    )

    def reader(name, doc):
        if name == "stream_datum" and doc["indices"]["start"] == 4:
            path = str(written(tmp_path))
            done = subprocess.run([sys.executable, "-c", code, path], capture_output=True)
            assert done.returncode == 0, done.stderr.decode()
            read.append(np.frombuffer(done.stdout, np.uint16).reshape(-1, 20, 24))

    engine(take_frames(hdf5_detector(frames, tmp_path), 8), reader)
    assert len(read) == 1
    assert np.array_equal(read[0], frames[:5])


def test_a_frame_is_in_the_file_when_its_datum_is_emitted(engine, tmp_path):
    frames, read = stack(), []

    def reader(name, doc):
        if name == "stream_datum":
            with h5py.File(written(tmp_path), "r", libver="latest", swmr=True) as file:
                read.append(file[DATASET][doc["indices"]["start"]])

    engine(take_frames(hdf5_detector(frames, tmp_path), 12), reader)
    assert np.array_equal(read, frames)


def test_every_run_has_a_file_of_its_own_that_begins_with_frame_0(engine, tmp_path):
    detector = hdf5_detector(stack(), tmp_path)
    seen = Documents()
    engine(take_frames(detector, 2), seen)
    engine(take_frames(detector, 2), seen)
    assert len({doc["uri"] for doc in seen.of("stream_resource")}) == 2
    for path in tmp_path.glob("*.h5"):
        with h5py.File(path) as file:
            assert np.array_equal(file[DATASET], stack()[:2])


def test_the_written_file_is_found_by_its_nexus_attributes(engine, tmp_path):
    engine(take_frames(hdf5_detector(stack(), tmp_path), 3))
    with open_stack(written(tmp_path)) as lazy:
        assert lazy.name.endswith(DATASET)
        assert np.array_equal(lazy[:], stack()[:3])


def test_the_folder_for_files_is_made(engine, tmp_path):
    folder = tmp_path / "2026" / "raw"
    provider = StaticPathProvider(StaticFilenameProvider("scan"), folder)
    engine(take_frames(PlayedHDF5Detector(stack(), provider, name="det"), 1))
    assert (folder / "scan.h5").is_file()


def test_past_the_end_the_hdf5_detector_fails_at_once_and_names_the_frame(engine, tmp_path):
    seen = Documents()
    with pytest.raises(FailedStatus, match="det: no frame 4, the stack has 4"):
        engine(take_frames(hdf5_detector(stack(4), tmp_path), 6), seen)
    assert len(seen.of("stream_datum")) == 4
    with pytest.raises(FailedStatus, match="det: no frame 4, the stack has 4"):
        engine(fly_frames(hdf5_detector(stack(4), tmp_path), 6))


def test_after_a_pause_and_rewind_the_file_goes_on(engine, tmp_path):
    frames, seen = stack(), Documents()
    with pytest.raises(RunEngineInterrupted):
        engine(interrupted(hdf5_detector(frames, tmp_path), 9, 3, 4), seen)
    engine.resume()
    assert [doc["indices"]["start"] for doc in seen.of("stream_datum")] == list(range(11))
    assert [d["seq_nums"]["start"] for d in seen.of("stream_datum")][3:8] == [4, 5, 4, 5, 6]
    with h5py.File(written(tmp_path)) as file:
        assert np.array_equal(file[DATASET], frames[:11])
