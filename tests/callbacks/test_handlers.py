"""Resources of other specs, read by handlers: classes that other packages install."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptychoseg_callbacks.assets.asset import asset_of_resource
from ptychoseg_callbacks.assets.readers import Reader, ReaderOptions, open_reader
from reader_support import numbered, numbers

from ptychoseg_stream.errors import DatasetError


class NumpyHandler:
    """As area-detector-handlers has them: one .npy file per point."""

    def __init__(self, path: str, template: str, frame_per_point: int = 1) -> None:
        self._template = path + "/" + template
        self.frames = frame_per_point

    def __call__(self, point_number: int) -> np.ndarray:
        return np.load(self._template % point_number)[: self.frames]

    def get_file_list(self, datums: list[dict[str, Any]]) -> list[str]:
        return [self._template % datum["point_number"] for datum in datums]


def handler(answer: Callable[[], Any]) -> Callable[..., Any]:
    """Return a handler class that answers whatever it is asked."""

    class Answering:
        def __init__(self, path: str, **_: Any) -> None:
            self.path = path

        def __call__(self, **_: Any) -> Any:
            return answer()

    return Answering


def reader_of(
    path: Path, handlers: dict[str, Callable[..., Any]], spec: str = "TEST", **options: Any
) -> Reader:
    doc = {"uid": "r1", "spec": spec, "root": "", "resource_path": str(path)}
    kwargs = {"template": "p%d.npy", "frame_per_point": 2} if spec == "NPY" else {}
    asset = asset_of_resource(doc | {"resource_kwargs": kwargs})
    return open_reader(asset, ReaderOptions(**({"read_timeout": 0.02} | options)), handlers)


def test_datum_is_asked_of_the_handler_of_its_spec(tmp_path: Path) -> None:
    np.save(tmp_path / "p0.npy", numbered(3))
    reader = reader_of(tmp_path, {"NPY": NumpyHandler}, "NPY")
    assert numbers(reader.read_datum({"point_number": 0})) == [0, 1]
    assert "spec NPY" in str(reader)


def test_late_file_of_a_handler_is_waited_for_and_costs_one_timeout(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, {"NPY": NumpyHandler}, "NPY")
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"spec NPY.*NumpyHandler.*root_map"):
            reader.read_datum({"point_number": 1})
    np.save(tmp_path / "p1.npy", numbered(2, first=5))
    assert numbers(reader.read_datum({"point_number": 1})) == [5, 6]


def test_one_image_is_a_stack_of_one() -> None:
    reader = reader_of(Path("/"), {"TEST": handler(lambda: numbered(1, first=3)[0])})
    assert numbers(reader.read_datum({})) == [3]


def test_lazy_answer_is_computed() -> None:
    dask = pytest.importorskip("dask.array")
    reader = reader_of(Path("/"), {"TEST": handler(lambda: dask.from_array(numbered(4)))})
    assert numbers(reader.read_datum({})) == [0, 1, 2, 3]


def test_lazy_answer_that_is_too_large_is_never_computed() -> None:
    dask = pytest.importorskip("dask.array")
    huge = dask.ones((1000, 4096, 4096), chunks=(1, 4096, 4096))
    reader = reader_of(Path("/"), {"TEST": handler(lambda: huge)})
    with pytest.raises(DatasetError, match=r"spec TEST.*bytes for one datum.*max_read_bytes"):
        reader.read_datum({})


@pytest.mark.parametrize(
    "answer", [None, 5, "text", [], np.ones(7), np.ones((2, 3), complex), [["a", "b"]], {"a": 1}]
)
def test_answer_that_is_no_image_is_refused(answer: Any) -> None:
    reader = reader_of(Path("/"), {"TEST": handler(lambda: answer)})
    with pytest.raises(DatasetError, match=r"spec TEST"):
        reader.read_datum({})


def test_handler_that_raises_whatever_is_an_error_of_ours_and_may_do_better_later() -> None:
    left = [ZeroDivisionError("a bug"), AttributeError("'Array' object has no attribute 'id'")]

    def answer() -> np.ndarray:
        if left:
            raise left.pop()
        return numbered(2)

    reader = reader_of(Path("/"), {"TEST": handler(answer)})
    for text in ("no attribute 'id'", "a bug"):
        with pytest.raises(DatasetError, match=text):
            reader.read_datum({})
    assert len(reader.read_datum({})) == 2


def test_handler_that_does_not_take_the_arguments_is_an_error_of_ours(tmp_path: Path) -> None:
    np.save(tmp_path / "p0.npy", numbered(3))
    with pytest.raises(DatasetError, match=r"unexpected keyword argument"):
        reader_of(tmp_path, {"NPY": NumpyHandler}, "NPY").read_datum(
            {"point_number": 0, "gap": 0.5}
        )
    with pytest.raises(DatasetError, match=r"template"):
        reader_of(tmp_path, {"TEST": NumpyHandler}).read_datum({"point_number": 0})


def test_spec_without_a_handler_is_refused_with_what_there_is_and_what_to_install() -> None:
    with pytest.raises(
        DatasetError, match=r"spec 'MINE' \(there are: .*OTHER.*databroker\.handlers"
    ):
        reader_of(Path("/data"), {"OTHER": NumpyHandler}, "MINE")


def install(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with a handler of spec INSTALLED, as pip would leave it."""
    info = folder / "some_handlers-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-handlers\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[databroker.handlers]\nINSTALLED = some_handlers:H\n")
    (folder / "some_handlers.py").write_text(module)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "some_handlers", raising=False)


def test_installed_handler_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path,
        "import numpy as np\nclass H:\n    def __init__(self, path): self.path = path\n"
        "    def __call__(self, n): return np.full((2, 12, 16), n)\n",
        monkeypatch,
    )
    assert numbers(reader_of(tmp_path, {}, "INSTALLED").read_datum({"n": 7})) == [7, 7]


def test_installed_handler_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "import a_package_that_is_not_there\n", monkeypatch)
    with pytest.raises(DatasetError, match=r"handler of spec INSTALLED.*a_package_that_is_not"):
        reader_of(tmp_path, {}, "INSTALLED")


class TestPlaces:
    def test_resource_outside_of_the_roots_is_refused_before_its_handler_is_made(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "root").mkdir()
        with pytest.raises(DatasetError, match=r"outside of the folders"):
            reader_of(tmp_path, {"NPY": NumpyHandler}, "NPY", roots=(str(tmp_path / "root"),))

    def test_files_that_a_handler_lists_must_lie_within_the_roots(self, tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        np.save(tmp_path / "secret.npy", numbered(1))
        (tmp_path / "root" / "p0.npy").symlink_to(tmp_path / "secret.npy")
        roots = (str(tmp_path / "root"),)
        reader = reader_of(tmp_path / "root", {"NPY": NumpyHandler}, "NPY", roots=roots)
        with pytest.raises(DatasetError, match=r"outside of the folders"):
            reader.read_datum({"point_number": 0})

    @pytest.mark.parametrize("word", ["../secret.npy", "{folder}/secret.npy"])
    def test_kwargs_that_lead_out_of_the_roots_are_refused(self, tmp_path: Path, word: str) -> None:
        (tmp_path / "root").mkdir()
        np.save(tmp_path / "secret.npy", numbered(1))
        reader = reader_of(
            tmp_path / "root",
            {"TEST": handler(lambda: numbered(1))},
            roots=(str(tmp_path / "root"),),
        )
        with pytest.raises(DatasetError, match=r"(leads out|outside)"):
            reader.read_datum({"file": word.format(folder=tmp_path), "n": 1})
        assert len(reader.read_datum({"file": "secret.npy", "key": "/entry/data/data"})) == 1

    def test_fifo_is_never_given_to_a_handler(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p0.npy")
        reader = reader_of(tmp_path, {"NPY": NumpyHandler}, "NPY")
        with pytest.raises(DatasetError, match=r"p0\.npy is a FIFO"):
            reader.read_datum({"point_number": 0})

    def test_own_reader_serves_area_detector_unless_a_handler_is_given(
        self, tmp_path: Path
    ) -> None:
        given = reader_of(tmp_path, {"AD_HDF5": handler(lambda: numbered(1))}, "AD_HDF5")
        assert numbers(given.read_datum({"point_number": 5})) == [0]
        assert str(reader_of(tmp_path, {}, "AD_HDF5")) == f"{tmp_path}:/entry/data/data"
