"""Documents over the frames of a file: valid, stable, and exactly the frames that are in it."""

import os
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from event_model import DocumentNames, schema_validators
from ptychoseg_callbacks.frames.finder import FinderOptions, FrameFinder
from replay_support import Documents, asymmetric, frames_of, images_of, names_of

from ptychoseg_stream.errors import DatasetError
from ptychoseg_stream.sources import open_stack
from ptychoseg_stream.sources.recorded.synthesised import SynthesisOptions, synthesise

FRAMES = asymmetric(37)


def documents(target: str | Path, **options: Any) -> Documents:
    return list(synthesise(target, SynthesisOptions(**options)))


def file_of(folder: Path, **datasets: Any) -> Path:
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_of(tmp_path, a__frames=FRAMES)


# ---- exactly the frames


def test_frames_come_in_order_and_orientation(path: Path) -> None:
    images = images_of(documents(path))
    assert images.dtype == FRAMES.dtype
    assert np.array_equal(images, FRAMES)


def test_the_frames_of_a_real_cxi_file_are_those_of_its_dataset(shared_data: Any) -> None:
    path = shared_data("gold_balls/goldballs_resim_f000-040.cxi")
    images = images_of(documents(path))
    with h5py.File(path) as file:
        assert np.array_equal(images, file["entry_1/instrument_1/detector_1/data"][:])


@pytest.mark.parametrize(
    "name",
    ["siemens_star/siemens_star_first258.h5", "petra_p25/PETRAIII_P25_Near_Field_Ptycho.cxi"],
)
def test_the_frames_of_other_real_files_are_those_of_their_dataset(
    shared_data: Any, name: str
) -> None:
    path = shared_data(name)
    with open_stack(path) as stack:
        frames = stack[:]
    assert np.array_equal(images_of(documents(path)), frames)


def test_frames_are_read_while_documents_come(path: Path) -> None:
    coming = synthesise(path)
    _, start = next(coming)
    finder = FrameFinder(start, FinderOptions(read_timeout=0.01))
    found = [frame.image for name, doc in coming for frame in finder.of(name, doc, 0.0)]
    finder.close()
    assert np.array_equal(found, FRAMES)


@pytest.mark.parametrize("columns", [2, 5, 40])
def test_a_grid_is_walked_row_by_row(tmp_path: Path, columns: int) -> None:
    frames = asymmetric(3 * columns)
    path = file_of(tmp_path, frames=frames.reshape(3, columns, *frames.shape[1:]))
    fed = documents(path)
    assert np.array_equal(images_of(fed), frames)
    assert fed[-1][1]["num_events"] == {"primary": 3}  # a row of the grid is a point


def test_compressed_frames_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("frames", data=FRAMES, chunks=(4, 12, 16), **hdf5plugin.Bitshuffle())
    fed = documents(tmp_path / "c.h5")
    assert fed[2][1]["parameters"] == {"dataset": "/frames", "chunk_shape": [4, 12, 16]}
    assert np.array_equal(images_of(fed), FRAMES)


@pytest.mark.parametrize("dtype", [">u2", "<i4", "<f8", "u1"])
def test_the_dtype_of_the_file_is_kept(tmp_path: Path, dtype: str) -> None:
    frames = (FRAMES % 200).astype(dtype)
    fed = documents(file_of(tmp_path, frames=frames))
    assert fed[1][1]["data_keys"]["frames"]["dtype_numpy"] == np.dtype(dtype).str
    assert np.array_equal(images_of(fed), frames)


def test_a_named_dataset_is_taken_although_another_is_larger(tmp_path: Path) -> None:
    path = file_of(tmp_path, small=FRAMES[:5], large=FRAMES)
    assert np.array_equal(images_of(documents(f"{path}:/small")), FRAMES[:5])


def test_datasets_in_which_the_scan_goes_on_are_told_of(tmp_path: Path, caplog: Any) -> None:
    path = file_of(
        tmp_path, entry__data__data_000001=FRAMES, entry__data__data_000002=FRAMES[:5], dark=FRAMES
    )
    documents(f"{path}:/entry/data/data_000001")
    assert "only /entry/data/data_000001 is replayed, not /entry/data/data_000002:" in caplog.text
    caplog.clear()
    documents(f"{path}:/dark")
    assert caplog.text == ""


def test_a_path_with_blanks_and_signs_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "beam time #3 50% ü"
    folder.mkdir()
    assert np.array_equal(images_of(documents(file_of(folder, frames=FRAMES))), FRAMES)


@pytest.mark.parametrize("shape", [(37, 12, 16), (1, 37, 12, 16)])
def test_frames_of_npy_travel_in_events(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "f.npy", FRAMES.reshape(shape))
    fed = documents(tmp_path / "f.npy")
    assert names_of(fed) == ["start", "descriptor", *["event"] * 37, "stop"]
    assert np.array_equal(images_of(fed), FRAMES)


def test_the_origin_of_each_frame_can_be_opened_again(path: Path) -> None:
    frames = frames_of(documents(path))
    (origin,) = {frame.origin for frame in frames}
    with open_stack(origin) as stack:
        assert np.array_equal(stack[7], FRAMES[7])


# ---- the documents


def check_valid(fed: Documents) -> None:
    for name, doc in fed:
        if name != "event":  # arrays are no JSON
            schema_validators[DocumentNames[name]].validate(doc)


def test_documents_are_valid_and_belong_together(path: Path) -> None:
    fed = documents(path)
    check_valid(fed)
    assert names_of(fed)[:3] == ["start", "descriptor", "stream_resource"]
    assert names_of(fed)[3:-1] == ["stream_datum", "event_page"] * 3
    run = fed[0][1]["uid"]
    assert {doc["run_start"] for name, doc in fed if "run_start" in doc} == {run}
    spans = [doc["indices"] for name, doc in fed if name == "stream_datum"]
    assert [(span["start"], span["stop"]) for span in spans] == [(0, 16), (16, 32), (32, 37)]
    assert fed[-1][1]["num_events"] == {"primary": 37}
    assert fed[0][1]["plan_name"] == "replay"
    assert fed[0][1]["replayed_from"] == f"{path}:/a/frames"


def test_the_same_file_gives_the_same_documents(path: Path, tmp_path: Path) -> None:
    assert documents(path) == documents(path)
    link = tmp_path / "link.h5"
    link.symlink_to(path)
    assert documents(link) == documents(path)


def test_another_file_dataset_or_content_is_another_run(tmp_path: Path) -> None:
    path = file_of(tmp_path, a=FRAMES, b=FRAMES)
    uids = {documents(f"{path}:/{name}")[0][1]["uid"] for name in "ab"}
    os.utime(path, (1.0, 1.0))
    uids.add(documents(f"{path}:/a")[0][1]["uid"])
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    uids.add(documents(f"{copy}:/a")[0][1]["uid"])
    assert len(uids) == 4


def test_no_uid_is_given_twice(path: Path) -> None:
    fed = documents(path)
    uids = [
        uid
        for _, doc in fed
        for uid in ([doc["uid"]] if isinstance(doc["uid"], str) else doc["uid"])
    ]
    assert len(set(uids)) == len(uids)


def test_stream_and_key_get_the_names_that_the_profile_looks_for(path: Path) -> None:
    fed = documents(path, stream="fly", data_key="eiger_image")
    found = images_of(fed, streams=("fly",), data_keys=("eiger_image",))
    assert np.array_equal(found, FRAMES)


def test_positions_travel_in_events(tmp_path: Path) -> None:
    xyz = np.arange(3.0 * 37).reshape(37, 3)
    path = file_of(
        tmp_path, entry_1__data_1__data=FRAMES, entry_1__sample_1__geometry_1__translation=xyz
    )
    fed = documents(path)
    check_valid(fed)
    pages = [doc["data"] for name, doc in fed if name == "event_page"]
    assert [x for page in pages for x in page["sample_x"]] == xyz[:, 0].tolist()
    assert [y for page in pages for y in page["sample_y"]] == xyz[:, 1].tolist()
    assert np.array_equal(images_of(fed), FRAMES)


def test_positions_of_a_grid_come_by_row(tmp_path: Path) -> None:
    xyz = np.arange(3.0 * 6).reshape(6, 3)
    grid = FRAMES[:6].reshape(2, 3, 12, 16)
    path = file_of(
        tmp_path, entry_1__data_1__data=grid, entry_1__sample_1__geometry_1__translation=xyz
    )
    fed = documents(path)
    check_valid(fed)
    (page,) = [doc["data"] for name, doc in fed if name == "event_page"]
    assert page["sample_x"] == xyz[:, 0].reshape(2, 3).tolist()
    assert np.array_equal(images_of(fed), FRAMES[:6])


def test_only_the_first_frames_are_announced_on_request(path: Path) -> None:
    fed = documents(path, limit=20)
    assert np.array_equal(images_of(fed), FRAMES[:20])
    assert fed[-1][1]["num_events"] == {"primary": 20}
    assert len(images_of(documents(path, limit=1000))) == 37


def test_of_a_grid_whole_rows_are_announced(tmp_path: Path) -> None:
    path = file_of(tmp_path, frames=FRAMES[:15].reshape(3, 5, 12, 16))
    assert np.array_equal(images_of(documents(path, limit=6)), FRAMES[:10])


def test_only_the_first_frames_of_npy_come_on_request(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", FRAMES)
    assert np.array_equal(images_of(documents(tmp_path / "f.npy", limit=3)), FRAMES[:3])


def test_times_follow_from_the_period(path: Path) -> None:
    fed = documents(path, period=0.5)
    began = fed[0][1]["time"]
    pages = [doc["time"] for name, doc in fed if name == "event_page"]
    assert [time for page in pages for time in page] == [began + 0.5 * (n + 1) for n in range(37)]
    assert fed[-1][1]["time"] == began + 0.5 * 37


@pytest.mark.parametrize("options", [{"block": 0}, {"limit": -1}, {"period": -1.0}])
def test_options_that_make_no_sense_are_refused_by_name(options: Any) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: "):
        SynthesisOptions(**options)


def test_a_file_without_frames_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"scan\.h5: no numeric dataset"):
        documents(file_of(tmp_path, line=np.arange(3)))


def test_the_file_is_not_held_open_by_its_documents(path: Path) -> None:
    coming = synthesise(path)
    assert next(coming)[0] == "start"
    with h5py.File(path, "a") as file:  # would be refused
        file["more"] = 1
    assert names_of(list(coming))[-1] == "stop"
