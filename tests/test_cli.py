"""What the commands print, write and answer; the demo has tests of its own."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from html import escape
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from stored_runs import profile_of, save_frames, stored
from typer.testing import CliRunner

from ptychoseg_stream import __version__
from ptychoseg_stream.cli import app
from ptychoseg_stream.commands import EvaluateArguments
from ptychoseg_stream.evaluation.material import read_material
from ptychoseg_stream.evaluation.offline import label_all
from ptychoseg_stream.node.store import MemoryStore, load_centroids
from ptychoseg_stream.profile import load_profile, profile_from
from ptychoseg_stream.science.som import Centroids

COMMANDS = ("demo", "fit", "evaluate", "reproduce", "profiles", "serve")
QUICK = """
node:
  stages: [0, 3]
  student: {base: 4, first_steps: 6, steps: 3, batch: 2, patch: 32}
"""


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    # Typer's own exit is the only one; anything else would be a traceback on a user's screen.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def prose(result):
    """What was printed, however its lines were broken."""
    return " ".join(plain(result.output).split())


def refused(*arguments):
    """Run what must be refused: exit code 2, one line on stderr, which is returned."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = plain(result.stderr).strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ptychoseg: ")
    return lines[0]


@pytest.fixture
def quick(tmp_path) -> Path:
    path = tmp_path / "quick.yml"
    path.write_text(QUICK)
    return path


@pytest.fixture
def stack(tmp_path, scan) -> Path:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = scan.frames[:6]
    return path


# --- help -----------------------------------------------------------------------------------------


def test_help_of_the_whole_says_what_to_type_first_and_what_exit_codes_mean():
    for arguments in ([], ["--help"]):
        text = prose(run(*arguments))
        assert "ptychoseg demo" in text
        assert "Exit codes" in text
        assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_says_what_to_do_next(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Next:" in plain(result.output)


def test_version():
    assert run("--version").output.strip() == f"ptychoseg_stream {__version__}"


def test_unknown_commands_and_options_are_refused():
    for arguments in (["evaluat"], ["evaluate"], ["evaluate", "sim", "--seeds", "0"]):
        assert run(*arguments).exit_code == 2


# --- fit ------------------------------------------------------------------------------------------


def test_fit_on_the_simulation_and_evaluate_with_its_centroids(tmp_path, quick):
    file = tmp_path / "new" / "x.h5"
    result = run("fit", "sim", "-o", file)
    assert result.exit_code == 0, result.output
    text = prose(result)
    assert str(file) in text
    for word in ("annulus", "prototypes are ring", "elbow", "plateau", "hash"):
        assert word in text
    centroids = load_centroids(file)
    assert centroids.hash == Centroids.fit(read_material("sim", 1).frames[0]).hash
    assert centroids.hash[:16] in text

    out = tmp_path / "o.json"
    options = ("--limit", 6, "--seeds", 1, "--profile", quick)
    result = run("evaluate", "sim:strong", "--centroids", file, "--json", out, *options)
    assert result.exit_code == 0, result.output
    assert "teacher, given centroids" in plain(result.output)
    scores = {s["name"]: s["ring"] for s in json.loads(out.read_text())["scores"]}
    assert 0.7 < scores["teacher, given centroids"] < 1


def test_fit_takes_the_frame_that_was_chosen(tmp_path, stack, scan):
    assert run("fit", stack, "-o", tmp_path / "c.h5", "--frame", 4).exit_code == 0
    assert load_centroids(tmp_path / "c.h5").hash == Centroids.fit(scan.frames[4]).hash


def test_fit_takes_the_simulation_that_was_named(tmp_path):
    for name in ("sim", "sim:strong"):
        assert run("fit", name, "-o", tmp_path / f"{name}.h5", "--frame", 3).exit_code == 0
    one, other = (load_centroids(tmp_path / f"{name}.h5") for name in ("sim", "sim:strong"))
    assert one.hash != other.hash


def test_fit_does_not_take_a_file_for_the_simulation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "simulated.h5: no such file" in refused("fit", "simulated.h5", "-o", "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_fit_refuses_a_frame_that_is_not_there_or_has_no_beam(tmp_path, stack):
    out = tmp_path / "c.h5"
    assert "6 frames, there is no frame 9" in refused("fit", stack, "-o", out, "--frame", 9)
    np.save(tmp_path / "dark.npy", np.zeros((3, 64, 64), np.uint16))
    message = refused("fit", tmp_path / "dark.npy", "-o", out, "--frame", 1)
    assert "dark.npy, frame 1: empty frame" in message
    assert not out.exists()


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_prints_figures_and_writes_json_picture_and_masks(tmp_path, quick, stack, scan):
    json_file, report, masks = tmp_path / "o.json", tmp_path / "o.png", tmp_path / "o.h5"
    result = run(
        *("evaluate", f"{stack}:/entry/data", "--seeds", 1, "--limit", 5, "--profile", quick),
        *("--json", json_file, "--report", report, "--masks", masks),
    )
    assert result.exit_code == 0, result.output
    text = prose(result)
    for word in ("teacher", "student", "fused", "Otsu", "constant mask", "3 of 5 frames scored"):
        assert word in text
    assert "half-maximum of the mean" in text

    figures = json.loads(json_file.read_text())
    assert figures["scored"] == 3
    assert figures["options"]["stages"] == [0, 3]
    assert [s["name"].split()[0] for s in figures["scores"]][:3] == ["teacher", "student", "fused"]
    assert all(f"{s['ring']:.3f}" in text for s in figures["scores"])
    assert report.read_bytes().startswith(b"\x89PNG")

    assert "NaN" not in json_file.read_text()
    assert figures["command"].startswith("ptychoseg evaluate ")

    expected = label_all(scan.frames[:5], load_profile(quick).node, MemoryStore())
    with h5py.File(masks) as file:
        assert np.array_equal(file["mask"][:], np.stack([m.classes for m in expected]))
        assert json.loads(file["mask"].attrs["class_codes"])["255"] == "invalid"


def test_evaluate_writes_a_page_that_names_its_command(tmp_path, quick, stack):
    report = tmp_path / "my report.html"
    arguments = ("--seeds", 1, "--limit", 5, "--profile", quick, "--quick", "--report", report)
    result = run("evaluate", stack, *arguments)
    assert result.exit_code == 0, result.output
    page = report.read_text()
    command = EvaluateArguments(
        str(stack), seeds=1, limit=5, profile=str(quick), quick=True, report=report
    ).command()
    assert shlex.split(command)[:3] == ["ptychoseg", "evaluate", str(stack)]
    assert shlex.split(command)[-2:] == ["--report", str(report)]
    assert "--quick --report" in command
    assert f"<code>{escape(command)}</code>" in page
    assert "random walker" not in page


def test_report_is_a_page_or_a_picture(tmp_path, quick, stack):
    message = refused("evaluate", stack, "--profile", quick, "--report", tmp_path / "r.pdf")
    assert "r.pdf" in message
    assert ".html" in message


def test_evaluate_takes_labels_and_a_dose(tmp_path, quick, stack, scan):
    np.save(tmp_path / "labels.npy", scan.truth[0])
    out = tmp_path / "o.json"
    result = run(
        *("evaluate", stack, "--labels", tmp_path / "labels.npy", "--dose", 0.1, "--seeds", 1),
        *("--profile", quick, "--json", out),
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["reference"].startswith("labels of ")
    names = [s["name"] for s in figures["scores"]]
    assert any(name.endswith("dose x0.1") for name in names)


def test_evaluate_goes_on_past_frames_that_cannot_be_labelled(tmp_path, quick, scan):
    frames = scan.frames[:6].astype(np.float32)
    frames[0] = 0
    frames[4] = np.nan
    np.save(tmp_path / "spoiled.npy", frames)
    result = run("evaluate", tmp_path / "spoiled.npy", "--seeds", 1, "--profile", quick)
    assert result.exit_code == 0, result.output


def test_limit_beyond_the_last_frame_takes_all_there_are(tmp_path, stack, quick):
    result = run("evaluate", stack, "--limit", 9999, "--seeds", 1, "--profile", quick)
    assert result.exit_code == 0
    assert "of 6 frames" in prose(result)


def test_bad_input_is_one_clear_line(tmp_path, stack, quick, scan):
    missing = refused("evaluate", tmp_path / "missing.h5")
    assert "missing.h5: no such file" in missing
    dataset = refused("evaluate", f"{stack}:/entry/images")
    assert "no dataset '/entry/images'" in dataset
    assert "/entry/data" in dataset  # what there is
    profile = refused("evaluate", stack, "--profile", "nope")
    assert "no profile 'nope'" in profile
    assert "ptychoseg profiles" in profile
    (tmp_path / "bad.yml").write_text("node: {stagess: [0]}")
    key = refused("evaluate", stack, "--profile", tmp_path / "bad.yml")
    assert "unknown key node.stagess; did you mean 'stages'?" in key
    np.save(tmp_path / "labels.npy", scan.truth[0, :50])
    labels = refused("evaluate", stack, "--labels", tmp_path / "labels.npy", "--profile", quick)
    assert "(50, 104)" in labels
    assert "(6, 104, 104)" in labels
    centroids = refused("evaluate", stack, "--centroids", tmp_path / "labels.npy")
    assert "cannot be read as centroids" in centroids
    np.save(tmp_path / "dark.npy", np.zeros((3, 64, 64), np.uint16))
    dark = refused("evaluate", tmp_path / "dark.npy")
    assert "dark.npy" in dark
    assert "empty frame" in dark


@pytest.mark.parametrize("option", ["--json", "--report", "--masks"])
def test_place_that_cannot_be_written_is_one_clear_line(tmp_path, stack, quick, option):
    nowhere = tmp_path / "nowhere" / "file.png"
    arguments = ("--limit", 3, "--seeds", 1, "--profile", quick, option, nowhere)
    result = run("evaluate", stack, *arguments)
    assert result.exit_code == 2 or nowhere.is_file()
    if result.exit_code:
        assert str(nowhere) in plain(result.stderr).replace("\n", "")


def test_fit_into_a_folder_is_one_clear_line(tmp_path, stack):
    assert str(tmp_path) in refused("fit", stack, "-o", tmp_path)


# --- reproduce ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory, scan):
    """A run of six frames in a file, its students in a folder: do not change them."""
    folder = tmp_path_factory.mktemp("kept")
    return stored(folder, scan.frames[:6], origin=save_frames(folder / "raw.h5", scan.frames[:6]))


@pytest.fixture
def copied(tmp_path, kept):
    """The file of that run, to be changed."""
    return shutil.copy(kept.file, tmp_path / "run.h5")


@pytest.mark.parametrize("options", [(), ("--retrain",)])
def test_reproduce_finds_frames_and_students_where_the_run_says(kept, options):
    result = run("reproduce", kept.file, "--row", 5, *options)
    assert result.exit_code == 0, result.output
    text = prose(result)
    assert f"run {kept.file.stem}, frames of {kept.file.parents[1] / 'raw.h5'}:/entry/data" in text
    how = "learned again" if options else "from the store"
    student = kept.masks[5].student_hash[:16]
    assert f"row 5: fused mask, made by student {student}, {how}" in text
    for name in ("mask", "valid_bits", "confidence", "teacher", "student", "fused"):
        assert f" {name} identical" in text
    assert "note:" not in text


def test_reproduce_takes_the_first_row_unless_told(kept):
    assert "row 0: " in prose(run("reproduce", kept.file))


def test_reproduce_says_how_many_pixels_differ_and_ends_with_1(tmp_path, kept, scan):
    frames = save_frames(tmp_path / "other.h5", scan.frames[6:12])
    result = run("reproduce", kept.file, "--row", 2, "--frames", frames)
    assert result.exit_code == 1, result.output
    text = prose(result)
    assert re.search(r"mask \d+ of 10816 pixels differ", text)
    assert "note: row 0 is the first that differs: " in text
    assert "note: versions that differ: none" in text


def test_reproduce_learns_again_where_nothing_is_kept_and_says_so(tmp_path, kept):
    result = run("reproduce", kept.file, "--row", 4, "--cache", tmp_path / "nothing")
    assert result.exit_code == 0, result.output
    text = prose(result)
    assert "learned again" in text
    assert text.count(f"note: learned again, since {tmp_path / 'nothing'}") == 1


def test_reproduce_wants_frames_that_came_in_events_to_be_named(tmp_path, scan):
    events = stored(tmp_path, scan.frames[:3])
    message = refused("reproduce", events.file, "--row", 1)
    assert "does not say where its raw frames are" in message
    assert "--frames FILE:/dataset" in message
    frames = save_frames(tmp_path / "raw.h5", scan.frames[:3])
    assert run("reproduce", events.file, "--row", 1, "--frames", frames).exit_code == 0


def test_reproduce_refuses_rows_and_frames_that_are_not_there(tmp_path, kept, scan):
    few = save_frames(tmp_path / "few.h5", scan.frames[:2])
    gone = tmp_path / "gone.h5"
    cases = {
        ("--row", 6): "there is no row 6: the run has 6",
        ("--row", 3, "--frames", few): "row 3 needs the frames 0 to 3, these are 2",
        ("--frames", gone): f"{gone}: no such file",
    }
    for options, says in cases.items():
        assert says in refused("reproduce", kept.file, *options)


def test_reproduce_says_where_frames_were_that_were_moved(tmp_path, scan):
    origin = save_frames(tmp_path / "raw.h5", scan.frames[:2])
    moved = stored(tmp_path, scan.frames[:2], origin=origin)
    (tmp_path / "raw.h5").rename(tmp_path / "else.h5")
    message = refused("reproduce", moved.file)
    assert f"{tmp_path / 'raw.h5'}: no such file" in message
    assert "--frames" in message
    assert run("reproduce", moved.file, "--frames", tmp_path / "else.h5").exit_code == 0


def test_reproduce_needs_the_users_pixel_mask_as_it_was(tmp_path, scan):
    bad = np.zeros((104, 104), np.uint8)
    bad[40:60, 40:60] = 1
    np.save(tmp_path / "bad.npy", bad)
    profile = replace(profile_of(tmp_path), pixel_mask=str(tmp_path / "bad.npy"))
    origin = save_frames(tmp_path / "raw.h5", scan.frames[:3])
    masked = stored(tmp_path, scan.frames[:3], profile, origin=origin)
    result = run("reproduce", masked.file, "--row", 2)
    assert result.exit_code == 0, result.output
    np.save(tmp_path / "bad.npy", bad[::-1])
    result = run("reproduce", masked.file, "--row", 2)
    assert result.exit_code == 1
    assert f"note: the pixel mask {tmp_path / 'bad.npy'} is not what it was" in prose(result)
    (tmp_path / "bad.npy").unlink()
    message = refused("reproduce", masked.file, "--row", 2)
    assert "the pixel mask of the run is needed" in message
    assert "bad.npy: no such file" in message


def change_start(path, change):
    """Change what the start document of a file says of the processing."""
    with h5py.File(path, "a") as file:
        start = json.loads(file["start"].asstr()[()])
        change(start["processing"])
        del file["start"]
        file["start"] = json.dumps(start)


def test_reproduce_refuses_options_that_this_version_does_not_have(copied):
    def change(processing):
        processing["version"] = "9.9"
        processing["options"]["student"]["charm"] = 3

    change_start(copied, change)
    message = refused("reproduce", copied)
    assert "unknown key node.student.charm" in message
    assert "made by ptychoseg_stream 9.9" in message


def test_reproduce_says_which_options_an_older_version_did_not_have(copied):
    change_start(copied, lambda processing: processing["options"].pop("promotion"))
    result = run("reproduce", copied, "--row", 1)
    assert result.exit_code == 0, result.output
    assert "had no option promotion: the default of this version is taken" in prose(result)


def test_reproduce_says_which_versions_differ_where_a_row_does(tmp_path, copied, scan):
    change_start(copied, lambda processing: processing["versions"].update(torch="1.0"))
    frames = save_frames(tmp_path / "other.h5", scan.frames[6:12])
    result = run("reproduce", copied, "--row", 1, "--frames", frames)
    assert result.exit_code == 1
    assert "note: versions that differ: torch 1.0 (here " in prose(result)


def test_reproduce_says_which_versions_a_student_was_learned_with(tmp_path, kept):
    cache = tmp_path / "cache"
    shutil.copytree(kept.file.parents[1] / "cache", cache)
    for path in cache.glob("student-*.h5"):
        with h5py.File(path, "a") as file:
            versions = json.loads(file.attrs["versions"])
            file.attrs["versions"] = json.dumps({**versions, "torch": "1.0"})
    result = run("reproduce", kept.file, "--row", 5, "--cache", cache)
    assert result.exit_code == 0, result.output
    student = kept.masks[0].student_hash[:16]
    assert f"note: student {student} was learned with torch 1.0 (here " in prose(result)
    assert prose(result).count("note: ") == 1  # the next one, too, but once is enough


def test_reproduce_learns_students_again_that_this_version_cannot_read(tmp_path, kept):
    cache = tmp_path / "cache"
    shutil.copytree(kept.file.parents[1] / "cache", cache)
    for path in cache.glob("student-*.h5"):
        with h5py.File(path, "a") as file:
            options = json.loads(file.attrs["student"])
            file.attrs["student"] = json.dumps({**options, "charm": 3})
    result = run("reproduce", kept.file, "--row", 5, "--cache", cache)
    assert result.exit_code == 0, result.output
    text = prose(result)
    assert "learned again, since" in text
    assert "cannot be read as a student" in text
    assert "charm" in text


def test_reproduce_refuses_what_is_no_stored_run(tmp_path, stack):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no HDF5")
    cases = {
        stack: "holds no masks; name an HDF5 file of a derived run",
        tmp_path / "text.h5": "cannot be read as HDF5",
        tmp_path / "empty": "holds no masks; name the folder that `ptychoseg demo` wrote",
        tmp_path / "none.h5": "no such file or folder; give one, a uid, or an address",
        "http://127.0.0.1:1/api/v1/metadata/x": "cannot be reached",
    }
    for target, says in cases.items():
        message = refused("reproduce", target)
        assert str(target) in message
        assert says in message
    uid = refused("reproduce", "1f0c5bd2", "--profile", "demo")
    assert "1f0c5bd2: no such file or folder, and the profile names no server" in uid


def test_reproduce_refuses_a_run_without_any_mask(tmp_path, scan):
    dark = [np.zeros_like(frame) for frame in scan.frames[:2]]
    empty = stored(tmp_path, dark, origin=save_frames(tmp_path / "raw.h5", dark))
    assert "no frame with a mask" in refused("reproduce", empty.file)


# --- profiles -------------------------------------------------------------------------------------


def test_profiles_are_listed_with_the_class_codes():
    text = plain(run("profiles").output)
    for word in ("demo", "beamline", "embedded", "255 invalid", "3 beam-stop"):
        assert word in text


def test_one_profile_is_shown_as_it_is_written():
    text = plain(run("profiles", "beamline").output)
    assert "trainer: background" in text
    assert "stages: [0, 5, 10, 15, 20]" in text
    assert "no profile 'nope'" in refused("profiles", "nope")


def test_printed_defaults_are_a_profile_with_every_key():
    data = yaml.safe_load(plain(run("profiles", "--defaults").output))
    assert profile_from(data, "printed") == profile_from({}, "nothing")
    assert set(data["node"]["student"]) >= {"base", "steps", "seed"}


def test_shown_profile_can_be_saved_and_used(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(plain(run("profiles", "beamline").output))
    assert load_profile(path) == load_profile("beamline")
