import dataclasses
import json
import os
from dataclasses import asdict

import pytest
import yaml

from ptychoseg_stream.errors import ProfileError
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.profile import (
    Profile,
    class_names,
    list_profiles,
    load_profile,
    profile_folders,
    profile_from,
)


def refusal(text, tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ProfileError) as error:
        load_profile(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_shipped_profiles_are_found_by_name_and_load():
    assert {"demo", "beamline"} <= set(list_profiles())
    for name in list_profiles():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.description
    assert load_profile("demo").tiled.uri == "embedded"
    assert load_profile("demo").trainer == "inline"
    assert load_profile("beamline").trainer == "background"
    assert load_profile("beamline").node == NodeOptions()


def test_profile_object_is_taken_as_it_is():
    profile = Profile(name="mine")
    assert load_profile(profile) is profile


def test_file_sets_what_it_says_and_leaves_the_rest(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(
        "name: mine\n"
        "batch: 3\n"
        "node:\n"
        "  stages: [0, 4]\n"
        "  serve: student\n"
        "  teacher: {weights: {angle: 0.1}, edge_level: 0.4}\n"
        "  prepare: {pedestal: 300, saturation: 60000}\n"
    )
    for what in (path, str(path)):
        profile = load_profile(what)
        assert (profile.name, profile.batch, profile.node.serve) == ("mine", 3, "student")
        assert profile.node.stages == (0, 4)
        assert profile.node.teacher.weights == {"angle": 0.1}
        assert profile.node.teacher.edge_level == 0.4
        assert profile.node.teacher.map_size == 10
        assert profile.node.prepare.pedestal == 300.0
        assert isinstance(profile.node.prepare.pedestal, float)
        assert profile.node.student == NodeOptions().student


def test_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "empty.yml").write_text("# nothing\n")
    assert load_profile(tmp_path / "empty.yml") == Profile()


def test_own_folder_is_searched_before_the_shipped_ones(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, text in ((one, "first"), (two, "second")):
        (folder / "deeper").mkdir(parents=True)
        (folder / "demo.yml").write_text(f"name: demo\ndescription: {text}\n")
    (two / "deeper" / "id16.yml").write_text("name: id16\n")
    monkeypatch.setenv("PTYCHOSEG_PROFILES", f"{one}{os.pathsep}{two}")
    assert profile_folders()[:2] == [one, two]
    assert load_profile("demo").description == "first"
    assert load_profile("id16").name == "id16"
    assert list_profiles()["id16"] == two / "deeper" / "id16.yml"
    assert load_profile("beamline").name == "beamline"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: {}", ["unknown key nodes", "did you mean 'node'?"]),
        ("node: {stagess: [0]}", ["unknown key node.stagess", "'stages'"]),
        ("node: {teacher: {sigmas: 3}}", ["unknown key node.teacher.sigmas", "'sigma'"]),
        ("tiled: {url: x}", ["unknown key tiled.url", "'uri'"]),
        ("zebra: 1", ["unknown key zebra", "known: ", "trainer"]),
        ("1: 2", ["unknown key 1"]),
        ("trainer: fast", ["trainer", "'fast'", "'background'"]),
        ("batch: 0", ["batch: 0 must be 1 or more"]),
        ("batch: many", ["batch", "'many'"]),
        ("node: {stages: 5}", ["node.stages", "given: 5"]),
        ("node: {stages: [0, x]}", ["node.stages.1", "'x'"]),
        ("node: {serve: best}", ["node.serve", "'best'"]),
        ("node: {stages: [5, 0]}", ["node.stages: [5, 0] must be frame indices that rise"]),
        ("node: {stages: [0, 5, 5]}", ["node.stages: [0, 5, 5]"]),
        ("node: {stages: [-1, 5]}", ["node.stages: [-1, 5]"]),
        (
            "node: {teacher: {weights: {radios: 1}}}",
            ["node.teacher.weights", "'radios'", "radius"],
        ),
        ("node: {prepare: {gain: much}}", ["node.prepare.gain", "'much'"]),
        ("node: {student: {steps: [1]}}", ["node.student.steps"]),
        ("node:", ["node"]),
        ("[1, 2]", ["`key: value`", "list"]),
        ("hello", ["`key: value`", "str"]),
    ],
)
def test_profile_that_makes_no_sense_is_refused_in_one_line(tmp_path, text, words):
    message = refusal(text, tmp_path)
    for word in words:
        assert word in message


def test_file_that_is_no_yaml_is_refused(tmp_path):
    assert "cannot be read as YAML" in refusal("node: {stages: [0]", tmp_path)
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"binary\.yml: cannot be read as YAML"):
        load_profile(tmp_path / "binary.yml")


def test_name_that_is_no_profile_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ProfileError, match=r"no profile 'dmeo'; there are .*demo"):
        load_profile("dmeo")


@pytest.mark.parametrize("what", ["missing.yml", "folder/missing", "./missing.yaml"])
def test_file_that_is_not_there_is_named(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError, match=r"missing(\.ya?ml)?: no such profile file"):
        load_profile(what)


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "evil.yml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ProfileError, match="cannot be read as YAML"):
        load_profile(path)


@pytest.mark.parametrize("name", ["demo", "beamline"])
def test_profile_survives_the_way_to_another_process(name):
    profile = load_profile(name)
    sent = json.loads(json.dumps(asdict(profile)))
    assert profile_from(sent, "sent") == profile
    assert profile_from(yaml.safe_load(yaml.safe_dump(sent)), "sent") == profile


def test_profile_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Profile().batch = 4  # type: ignore[misc]


def test_class_names_are_for_people():
    assert class_names() == {
        0: "background",
        1: "ring",
        2: "core",
        3: "beam-stop",
        4: "scatter",
        5: "empty",
        255: "invalid",
    }
