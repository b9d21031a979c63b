import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from detectors_support import watermarked
from event_model import compose_run
from ptychoseg_callbacks.frames.finder import FinderOptions, FrameFinder
from ptychoseg_callbacks.frames.options import PositionOptions

from ptychoseg_stream.errors import DatasetError

IMAGE = {"source": "test", "dtype": "array", "shape": [12, 16], "dtype_numpy": "<u2"}
HINTS = {"hints": {"dimensions": [[["stage_y"], "primary"], [["stage_x"], "primary"]]}}


def axis(units: Any = "um", **more: Any) -> dict[str, Any]:
    return {"source": "motor", "dtype": "number", "shape": [], "units": units, **more}


class Scan:
    """A run whose events hold an image and two coordinates."""

    def __init__(
        self,
        keys: dict[str, Any] | None = None,
        start: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        **positions: Any,
    ) -> None:
        self.run = compose_run(
            uid="run", metadata=HINTS if start is None else start, validate=False
        )
        axes = {"stage_y": axis(), "stage_x": axis()} if keys is None else keys
        self.stream = self.run.compose_descriptor(
            name="primary", data_keys={"image": image or IMAGE, **axes}, validate=False
        )
        options = FinderOptions(
            read_timeout=0.02, refill_timeout=0.02, positions=PositionOptions(**positions)
        )
        self.finder = FrameFinder(self.run.start_doc, options)
        self.feed("descriptor", self.stream.descriptor_doc)

    def feed(self, name: str, doc: Any) -> int:
        return len(list(self.finder.of(name, doc)))

    def event(self, seq_num: int, **data: Any) -> int:
        doc = self.stream.compose_event(
            data={"image": watermarked(seq_num), **data},
            timestamps=dict.fromkeys(["image", *data], 1.0),
            seq_num=seq_num,
            validate=False,
        )
        return self.feed("event", dict(doc))

    @property
    def found(self) -> list[list[float]]:
        return (1e6 * self.finder.positions()).round(6).tolist()


def test_events_say_where_the_probe_is_in_metres():
    scan = Scan()
    scan.event(1, stage_y=2.0, stage_x=-3.5)
    scan.event(2, stage_y=2.0, stage_x=-3.0)
    assert scan.found == [[2.0, -3.5], [2.0, -3.0]]
    assert scan.finder.positions().dtype == np.float64


@pytest.mark.parametrize(
    ("units", "metres"), [("mm", 1e-3), ("nm", 1e-9), ("m", 1.0), ("µm", 1e-6), ("MM", 1e-3)]
)
def test_units_of_the_descriptor_are_believed(units, metres):
    scan = Scan({"stage_y": axis(units), "stage_x": axis(units)})
    scan.event(1, stage_y=1.0, stage_x=2.0)
    assert scan.finder.positions().tolist() == [[metres, pytest.approx(2 * metres)]]


@pytest.mark.parametrize("units", ["deg", "", None, 5])
def test_coordinates_without_a_unit_of_length_are_not_believed_and_it_is_said_once(
    units, caplog: pytest.LogCaptureFixture
):
    scan = Scan({"stage_y": axis(units), "stage_x": axis(units)})
    scan.event(1, stage_y=1.0, stage_x=2.0)
    assert np.isnan(scan.finder.positions()).all()
    (line,) = (r.message for r in caplog.records if r.levelno == logging.WARNING)
    assert "stage_y" in line
    assert "frames.positions.unit" in line


@pytest.mark.parametrize("said", ["nm", {"stage_y": "nm", "stage_x": "nm"}], ids=["all", "each"])
def test_the_start_document_may_say_the_unit_that_motors_do_not(said):
    scan = Scan({"stage_y": axis(None), "stage_x": axis(None)}, {**HINTS, "positions_unit": said})
    scan.event(1, stage_y=10.0, stage_x=20.0)
    assert scan.found == [[0.01, 0.02]]


def test_the_profile_names_keys_unit_and_sign():
    keys = {"a": axis("deg"), "b": axis(None)}
    scan = Scan(keys, {}, y="b", x="a", unit="nm", y_factor=-1.0, x_factor=2.0)
    scan.event(1, a=10.0, b=20.0)
    assert scan.found == [[-0.02, 0.02]]


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ({"motors": ["stage_y", "stage_x"]}, ("stage_y", "stage_x")),
        ({"motors": ["stage_x", "stage_y"]}, ("stage_y", "stage_x")),
        ({"motors": ["slow", "fast"]}, ("slow", "fast")),
        ({"hints": {"dimensions": [[["px", "py"], "primary"]]}}, ("py", "px")),
        ({}, ("sample_y", "sample_x")),
        ({"hints": {"dimensions": 3}, "motors": "x"}, ("sample_y", "sample_x")),
    ],
    ids=["y x", "x y", "nested", "along a path", "by name", "odd hints"],
)
def test_the_start_document_or_the_names_tell_y_and_x(start, names):
    keys = {"extra_x": axis(), **{name: axis() for name in names}}
    scan = Scan(keys, start)
    scan.event(1, extra_x=9.0, **dict(zip(names, (1.0, 2.0), strict=True)))
    assert scan.found == [[1.0, 2.0]]


def test_a_page_that_comes_after_its_frames_fills_their_positions(tmp_path: Path):
    scan = Scan(image={**IMAGE, "external": "STREAM:"})
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        file["frames"] = np.stack([watermarked(n) for n in range(3)])
    resource = scan.run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=path.as_uri(),
        data_key="image",
        parameters={"dataset": "/frames"},
    )
    scan.feed("stream_resource", resource.stream_resource_doc)
    datum = resource.compose_stream_datum(
        indices={"start": 0, "stop": 3},
        seq_nums={"start": 1, "stop": 4},
        descriptor=scan.stream.descriptor_doc,
    )
    assert scan.feed("stream_datum", datum) == 3
    assert np.isnan(scan.finder.positions()).all()
    data = {"stage_y": [0.0, 0.0, 1.0], "stage_x": [0.0, 1.0, 0.0]}
    page = scan.stream.compose_event_page(
        data=data,
        timestamps=dict.fromkeys(data, [1.0] * 3),
        seq_num=[1, 2, 3],
        filled={},
        uid=["a", "b", "c"],
        time=[1.0] * 3,
        validate=False,
    )
    assert scan.feed("event_page", page) == 0
    assert scan.found == [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]


def test_encoders_that_write_into_a_file_are_read_from_it_as_it_grows(tmp_path: Path):
    streamed = {"external": "STREAM:", "dtype_numpy": "<f8", "shape": [1], "dtype": "array"}
    keys = {name: axis("mm", **streamed) for name in ("stage_y", "stage_x")}
    scan = Scan(keys)
    path = tmp_path / "encoders.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("y", data=np.zeros(2), maxshape=(None,))
        file["x"] = np.array([[1.0], [2.0], [3.0]])
    for key, name in (("stage_y", "y"), ("stage_x", "x")):
        resource = scan.run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=path.as_uri(),
            data_key=key,
            parameters={"dataset": f"/{name}"},
        )
        scan.feed("stream_resource", resource.stream_resource_doc)
        datum = resource.compose_stream_datum(
            indices={"start": 0, "stop": 3},
            seq_nums={"start": 1, "stop": 4},
            descriptor=scan.stream.descriptor_doc,
        )
        scan.feed("stream_datum", datum)
    for seq_num in (1, 2, 3):
        scan.event(seq_num)
    assert scan.found[:2] == [[0.0, 1000.0], [0.0, 2000.0]]
    assert np.isnan(scan.finder.positions()[2, 0])
    with h5py.File(path, "a") as file:
        file["y"].resize(3, axis=0)
        file["y"][2] = 0.5
    assert scan.found[2] == [500.0, 3000.0]


def test_encoders_in_a_file_that_may_not_be_read_cost_no_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    streamed = {"external": "STREAM:", "shape": [], "dtype_numpy": "<f8"}
    scan = Scan({name: axis("mm", **streamed) for name in ("stage_y", "stage_x")})
    for key in ("stage_y", "stage_x"):
        resource = scan.run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri="file://localhost/etc/passwd",
            data_key=key,
            parameters={"dataset": "/y"},
        )
        scan.feed("stream_resource", resource.stream_resource_doc)
        datum = resource.compose_stream_datum(
            indices={"start": 0, "stop": 1},
            seq_nums={"start": 1, "stop": 2},
            descriptor=scan.stream.descriptor_doc,
        )
        scan.feed("stream_datum", datum)
    assert scan.event(1) == 1
    assert np.isnan(scan.finder.positions()).all()
    assert np.isnan(scan.finder.positions()).all()
    assert len([r for r in caplog.records if "cannot be read" in r.message]) == 2


def test_an_event_of_several_frames_has_one_position_or_one_for_each():
    image = {**IMAGE, "shape": [2, 12, 16]}
    scan = Scan(image=image)
    images = np.stack([watermarked(1), watermarked(2)])
    scan.event(1, image=images, stage_y=1.0, stage_x=[5.0, 6.0])
    scan.event(2, image=images, stage_y=[2.0, 3.0], stage_x=7.0)
    assert scan.found == [[1.0, 5.0], [1.0, 6.0], [2.0, 7.0], [3.0, 7.0]]


def test_frames_of_lost_events_have_no_position():
    scan = Scan()
    scan.event(1, stage_y=1.0, stage_x=1.0)
    assert scan.event(3, stage_y=3.0, stage_x=3.0) == 2
    assert np.isnan(scan.finder.positions()[1]).all()
    assert scan.found[2] == [3.0, 3.0]


def test_a_point_that_is_taken_again_has_its_place_both_times():
    scan = Scan()
    for seq_num in (1, 2, 2, 3):
        scan.event(seq_num, stage_y=float(seq_num), stage_x=0.0)
    assert [y for y, _ in scan.found] == [1.0, 2.0, 2.0, 3.0]


@pytest.mark.parametrize("value", ["here", None, {}, [], [[]], object])
def test_a_position_that_is_no_number_is_not_known(value):
    scan = Scan()
    assert scan.event(1, stage_y=value, stage_x=1.0) == 1
    assert np.isnan(scan.finder.positions()[0, 0])


def test_a_malformed_page_is_told_and_costs_nothing_else():
    scan = Scan()
    page = {"descriptor": scan.stream.descriptor_doc["uid"], "data": 3}
    with pytest.raises(DatasetError):
        scan.feed("event_page", page)
    assert scan.event(1, stage_y=1.0, stage_x=1.0) == 1
    assert scan.found == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "wrong", [{"y": "a"}, {"unit": "furlong"}, {"y_factor": 0.0}, {"x_factor": float("nan")}]
)
def test_options_that_cannot_work_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PositionOptions(**wrong)
