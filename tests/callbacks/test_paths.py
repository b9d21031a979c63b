"""Where files are on this machine, whether they may be read, and how sequences are called."""

import socket
from pathlib import Path

import pytest
from ptychoseg_callbacks.assets.options import ReaderOptions
from ptychoseg_callbacks.assets.paths import Fence, FileNames, local_path

from ptychoseg_stream.errors import DatasetError

MAP = {
    "/det": "/mnt/det",
    "/det/scans": "/mnt/fast/",
    "X:\\data": "/mnt/x",
    "//ioc7/share": "/mnt/share",
}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/a/b.h5", "/a/b.h5"),
        ("file:///a/with%20space%23.h5", "/a/with space#.h5"),
        ("file:///a/what?.h5", "/a/what?.h5"),
        ("file://localhost/a/b.h5", "/a/b.h5"),
        ("file://localhost//a/b.h5", "//a/b.h5"),
        (f"file://{socket.gethostname()}/a/b.h5", "/a/b.h5"),
        ("file:/a/b.h5", "/a/b.h5"),
        ("/det/b.h5", "/mnt/det/b.h5"),
        ("file:///det/scans/b.h5", "/mnt/fast/b.h5"),
        ("/detector/b.h5", "/detector/b.h5"),
        ("X:\\data\\a\\b.h5", "/mnt/x/a/b.h5"),
        ("x:/Data/b.h5", "/mnt/x/b.h5"),
        ("file://localhost/X:/data/b.h5", "/mnt/x/b.h5"),
        ("file:///X:/data/b.h5", "/mnt/x/b.h5"),
        ("file://ioc7/share/b.h5", "/mnt/share/b.h5"),
        ("\\\\IOC7\\share\\b.h5", "/mnt/share/b.h5"),
    ],
)
def test_path_of_a_document_is_found_on_this_machine(uri: str, path: str) -> None:
    assert local_path(uri, MAP) == path


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/a.h5",
        "s3://bucket/a.h5",
        "https:a.h5",
        "relative/a.h5",
        "",
        "file://",
        "file://other/a.h5",
        "file://IOC7.example.org/share/a.h5",
        "Y:\\data\\a.h5",
        "\\\\server\\share\\a.h5",
    ],
)
def test_path_of_elsewhere_is_refused_with_what_to_do(uri: str) -> None:
    with pytest.raises(DatasetError, match=r"(root_map|write frames to files|device emits)"):
        local_path(uri, MAP)


def test_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"is no path"):
        Fence().check("/a\0b")


def test_dots_do_not_lead_out_of_the_roots(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root2").mkdir()
    fence = Fence((str(tmp_path / "root"),))
    fence.check_place(str(tmp_path / "root" / "a.h5"))
    for name in ("root/../a.h5", "root2/a.h5"):
        with pytest.raises(DatasetError, match=r"outside of the folders.*frames\.roots"):
            fence.check_place(str(tmp_path / name))


def test_root_that_is_a_symbolic_link_is_the_folder_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    fence = Fence((str(tmp_path / "root"),))
    fence.check_place(str(tmp_path / "real" / "a.h5"))
    with pytest.raises(DatasetError):
        fence.check_place(str(tmp_path / "a.h5"))


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("%s%s_%6.6d.tiff", "/d/abc_000012.tiff"),
        ("/%s%s_%06d.tiff", "/d/abc_000012.tiff"),
        ("%s_%d.tiff", "/d/abc_12.tiff"),
        ("%s%s_%5d.tiff", "/d/abc_   12.tiff"),
        ("abc_{:06d}.tif", "/d/abc_000012.tif"),
        ("/{:d}.tif", "/d/12.tif"),
        ("{}.tif", "/d/12.tif"),
        ("sub/{0:03d}.tif", "/d/sub/012.tif"),
        ("all.tif", "/d/all.tif"),
    ],
)
def test_files_of_a_sequence_are_called_as_the_detector_calls_them(
    template: str, name: str
) -> None:
    assert FileNames("/d/", template, "abc").of(12) == name


def test_beginning_of_a_name_goes_on_and_a_folder_gets_a_slash(tmp_path: Path) -> None:
    assert FileNames(f"{tmp_path}/uid", "_{:d}.tif").of(3) == f"{tmp_path}/uid_3.tif"
    assert FileNames(str(tmp_path), "a_{:d}.tif").of(3) == f"{tmp_path}/a_3.tif"
    assert FileNames(str(tmp_path), "/a_{:d}.tif").of(3) == f"{tmp_path}/a_3.tif"


@pytest.mark.parametrize(
    "template",
    [
        "%d_%d.tif",
        "{0.__class__}.tif",
        "{:999999999999d}.tif",
        "%999999999999d.tif",
        "%(name)s.tif",
        "%s%s%s_%d.tif",
        "%s_%d_%s.tif",
        "../../etc/{:d}",
        "%x.tif",
        "{!r}.tif",
    ],
)
def test_template_that_does_more_than_count_is_refused(template: str) -> None:
    with pytest.raises(DatasetError, match=r"template|leads out"):
        FileNames("/d/", template, "abc")


def test_filename_cannot_lead_out_of_its_folder_either() -> None:
    with pytest.raises(DatasetError, match=r"leads out"):
        FileNames("/d/", "%s%s_%d.tif", "../../etc/x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("roots", ("data",)),
        ("read_timeout", -1.0),
        ("read_timeout", float("nan")),
        ("max_pixels", 0),
        ("max_read_bytes", 10),
    ],
)
def test_option_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        ReaderOptions(**{name: value})  # pyright: ignore[reportArgumentType]
