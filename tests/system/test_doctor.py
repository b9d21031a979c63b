"""`ptychoseg doctor` against what is there and what is not; and `ptychoseg upload`."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from endings_support import Line, detector_of, points
from faulty_proxy import FaultyProxy
from many_users import ManyUsers
from ptychoseg_callbacks.journals.folder import Journals
from ptychoseg_callbacks.journals.machine import Machine, this_machine
from typer.testing import CliRunner
from ways_support import MockKafka, Recorder, emit, find_derived, run_engine, zmq_proxy

from ptychoseg_stream.cli import app
from ptychoseg_stream.node.spool import SpoolOptions
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.sinks.connection import SCOPES
from ptychoseg_stream.sinks.embedded import EmbeddedTiled
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.tiled import TiledSink

NOWHERE = "http://127.0.0.1:9"


@dataclass
class Doctor:
    """A profile file, and what the commands say of it."""

    folder: Path
    settings: dict[str, Any]
    secrets: list[str] = field(default_factory=list)

    @property
    def profile(self) -> Path:
        path = self.folder / "checked.yml"
        path.write_text(yaml.safe_dump(self.settings))
        return path

    def look(self, *arguments: str) -> tuple[int, dict[str, str]]:
        """Return exit code and lines, ``{"ok Tiled": text}``; of one name, joined."""
        code, output = self.run("doctor", *arguments)
        lines = output.splitlines()
        assert lines[0].startswith("profile checked")
        found: dict[str, str] = {}
        for line in lines[1:]:
            match = re.fullmatch(r"(ok  |note|FAIL) ([\w .]+): (.+)", line)
            assert match, f"not a line of a check list: {line!r}"
            name = f"{match[1].strip()} {match[2]}"
            found[name] = f"{found.get(name, '')}{match[3]}\n"
        failed = any(name.startswith("FAIL") for name in found)
        assert code == int(failed)
        advised = [line for line in lines if line.startswith("FAIL")]
        assert all(" → " in line for line in advised), advised
        return code, found

    def run(self, command: str, *arguments: str) -> tuple[int, str]:
        arguments = (command, "--profile", str(self.profile), *arguments)
        result = CliRunner().invoke(app, list(arguments))
        assert "Traceback" not in result.output
        for secret in self.secrets:
            assert secret not in result.output
        return result.exit_code, result.output


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Everything is in order, but there is no server."""
    monkeypatch.setenv("TILED_API_KEY", "key-of-a-test-0123456789")
    settings = {
        "name": "checked",
        "tiled": {"uri": NOWHERE, "container": f"processed/{tmp_path.name}"},
        "spool": {"folder": str(tmp_path / "spool"), "min_free_bytes": 1},
        "cache": str(tmp_path / "cache"),
        "frames": {"roots": [str(tmp_path)]},
    }
    return Doctor(tmp_path, settings, ["key-of-a-test-0123456789"])


@pytest.fixture
def healthy(doctor: Doctor, tiled: EmbeddedTiled, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """With its server."""
    monkeypatch.setenv("TILED_API_KEY", tiled.api_key)
    doctor.settings["tiled"]["uri"] = tiled.uri
    doctor.secrets.append(tiled.api_key)
    return doctor


def test_a_profile_that_works_has_only_good_lines_and_exit_code_0(healthy: Doctor) -> None:
    code, lines = healthy.look()
    assert code == 0
    for name in ("journal", "mask spool", "disk space", "cache", "roots", "Tiled", "scopes"):
        assert f"ok {name}" in lines
    assert "single user" in lines["ok scopes"]
    assert "on this machine" in lines["ok transport"]
    assert "stay lost" in lines["note raw runs"]


def test_whether_there_is_a_gpu_is_told(healthy: Doctor) -> None:
    _, lines = healthy.look()
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in lines["ok processor"]
    else:
        assert "no GPU seen: students learn on the CPU" in lines["note processor"]


def test_a_server_that_is_not_there_is_told(doctor: Doctor) -> None:
    code, lines = doctor.look()
    assert code == 1
    assert [name for name in lines if name.startswith("FAIL")] == ["FAIL Tiled"]
    assert f"Tiled at {NOWHERE} cannot be reached" in lines["FAIL Tiled"]
    assert "`tiled.uri`" in lines["FAIL Tiled"]


def test_a_wrong_key_and_none_are_told_and_never_shown(
    healthy: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILED_API_KEY", "wrong-key-of-a-test")
    healthy.secrets.append("wrong-key-of-a-test")
    code, lines = healthy.look()
    assert code == 1
    assert "refuses" in lines["FAIL Tiled"]
    assert "TILED_API_KEY" in lines["FAIL Tiled"]
    monkeypatch.delenv("TILED_API_KEY")
    code, lines = healthy.look()
    assert code == 1
    assert "TILED_API_KEY is not set" in lines["FAIL API key"]


def test_a_key_is_read_from_the_variable_that_the_profile_names(
    healthy: Doctor, tiled: EmbeddedTiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILED_API_KEY", "wrong-key-of-a-test")
    monkeypatch.setenv("MASKS_KEY", tiled.api_key)
    healthy.settings["tiled"]["api_key_env"] = "MASKS_KEY"
    assert healthy.look()[0] == 0


def test_an_embedded_server_needs_nothing(doctor: Doctor) -> None:
    doctor.settings["tiled"] = {"uri": "embedded"}
    code, lines = doctor.look()
    assert code == 0
    assert "embedded" in lines["note Tiled"]


def test_a_server_elsewhere_without_encryption_is_a_note(doctor: Doctor) -> None:
    doctor.settings["tiled"]["uri"] = "http://tiled.invalid:8000"
    assert "not encrypted" in doctor.look()[1]["note transport"]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyUsers]:
    with ManyUsers(tmp_path_factory.mktemp("users")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        (lambda scopes: scopes, "ok scopes", "exactly those that are needed"),
        (
            lambda scopes: [*scopes, "create:apikeys"],
            "note scopes",
            "the key may also create:apikeys",
        ),
        (
            lambda scopes: [s for s in scopes if s not in ("write:data", "create:node")],
            "FAIL scopes",
            "the key lacks create:node, write:data",
        ),
        (lambda scopes: ["inherit"], "note scopes", "all that its owner may"),
        (lambda scopes: ["write:data"], "FAIL scopes", "read:metadata"),
    ],
)
def test_the_scopes_of_a_key_are_compared_with_those_that_are_needed(
    change: Callable[[list[str]], list[str]],
    name: str,
    text: str,
    doctor: Doctor,
    users: ManyUsers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = users.key(change(SCOPES.split(", ")))
    monkeypatch.setenv("TILED_API_KEY", key)
    doctor.secrets.append(key)
    doctor.settings["tiled"]["uri"] = users.uri
    _, lines = doctor.look()
    assert text in lines[name]


@pytest.mark.slow
def test_scopes_are_asked_for_where_the_server_is_also_behind_a_prefix(
    doctor: Doctor, users: ManyUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes: list[str] = list(SCOPES.split(", "))
    key = users.key(scopes)
    monkeypatch.setenv("TILED_API_KEY", key)
    doctor.secrets.append(key)
    with FaultyProxy(users.uri) as proxy:
        proxy.prefix = "/tiled"
        for uri in (f"{proxy.uri}/tiled", f"{proxy.uri}/tiled/api/v1"):
            doctor.settings["tiled"]["uri"] = uri
            _, lines = doctor.look()
            assert "exactly those that are needed" in lines.get("ok scopes", str(lines))
        # Also where the server refuses us, and there is no client to say where its API is.
        proxy.chosen = lambda method, path: "/metadata/" in path
        proxy.status = 403
        code, lines = doctor.look()
        assert code == 1
        assert "FAIL Tiled" in lines
        assert "exactly those that are needed" in lines["ok scopes"]


SECRET = "5ecret-of-a-test"
WITH_SECRETS = [
    "{scheme}://me:5ecret-of-a-test@127.0.0.1:9/raw",
    "{scheme}://5ecret-of-a-test@127.0.0.1:9/raw",
    "{scheme}://127.0.0.1:9/raw?api_key=5ecret-of-a-test",
    "{scheme}://127.0.0.1:9/raw#5ecret-of-a-test",
    "{scheme}://me:5ecret-of-a-test/x@[::1/raw",
]
ASKING = [
    *(["run", "--source", scheme] for scheme in ("tiled", "zmq", "kafka", "ftp")),
    *(["doctor", "--source", scheme] for scheme in ("tiled", "zmq", "kafka", "ftp")),
    *(["replay", scheme] for scheme in ("tiled", "ftp")),
    ["audit", "http"],
    ["reproduce", "http"],
]


@pytest.mark.parametrize("asking", ASKING, ids=" ".join)
def test_an_address_that_holds_a_secret_is_refused_and_never_repeated(
    asking: list[str], doctor: Doctor
) -> None:
    command, *options, scheme = asking
    doctor.settings["tiled"]["uri"] = "embedded"
    doctor.secrets.append(SECRET)
    for form in WITH_SECRETS:
        code, output = doctor.run(command, *options, form.format(scheme=scheme))
        assert code == (1 if command == "doctor" else 2), output
        assert "give" in output


def test_folders_that_cannot_be_written_are_told(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    doctor.settings["spool"]["folder"] = str(tmp_path / "file" / "spool")
    doctor.settings["cache"] = str(tmp_path / "file")
    code, lines = doctor.look()
    assert code == 1
    assert "cannot be written" in lines["FAIL journal"]
    assert "`spool.folder`" in lines["FAIL mask spool"]
    assert "`cache`" in lines["FAIL cache"]


def test_a_disk_that_is_too_full_is_told(doctor: Doctor) -> None:
    doctor.settings["spool"]["min_free_bytes"] = 1 << 60
    code, lines = doctor.look()
    assert code == 1
    assert "GiB free at" in lines["FAIL disk space"]


def test_folders_of_frames_that_are_missing_are_told(doctor: Doctor, tmp_path: Path) -> None:
    missing = tmp_path / "not mounted [here]"
    doctor.settings["frames"] = {"roots": [str(missing)], "root_map": {"/det": str(missing)}}
    code, lines = doctor.look()
    assert code == 1
    assert f"{missing} is no folder that can be read" in lines["FAIL roots"]
    assert "it stands for /det" in lines["FAIL root_map"]
    doctor.settings["frames"] = {}
    assert "anywhere on this machine" in doctor.look()[1]["note roots"]


def test_a_pixel_mask_is_read(doctor: Doctor, tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.eye(5, 7, dtype=np.uint8))
    doctor.settings["pixel_mask"] = str(tmp_path / "mask.npy")
    assert "5 x 7 pixels, 5 of them never used" in doctor.look()[1]["ok pixel mask"]
    doctor.settings["pixel_mask"] = str(tmp_path / "none.npy")
    assert "none.npy" in doctor.look()[1]["FAIL pixel mask"]


def test_raw_runs_in_tiled_are_looked_for(healthy: Doctor, tiled: EmbeddedTiled) -> None:
    root: Any = tiled.client()
    name = root.create_container(f"raw-{healthy.folder.name}").item["id"]
    uri = tiled.uri.replace("http", "tiled", 1)
    healthy.settings["raw"] = {"uri": uri, "path": name}
    assert f"{uri}/{name} answers" in healthy.look()[1]["ok raw runs"]
    healthy.settings["raw"] = {"uri": tiled.uri}
    assert "answers" in healthy.look()[1]["ok raw runs"]
    healthy.settings["raw"] = {"uri": uri, "path": "no/such"}
    assert "`raw.path`" in healthy.look()[1]["FAIL raw runs"]
    healthy.settings["raw"] = {"uri": uri, "path": name, "api_key_env": "NO_SUCH_KEY"}
    assert "NO_SUCH_KEY" in healthy.look()[1]["FAIL raw runs"]
    healthy.settings["raw"] = {"uri": "ftp://127.0.0.1"}
    assert "no address" in healthy.look()[1]["FAIL raw runs"]


@pytest.mark.slow
def test_a_source_of_0mq_answers_or_does_not(healthy: Doctor) -> None:
    with zmq_proxy() as (_, out):
        assert f"{out} answers" in healthy.look("--source", out)[1]["ok source"]
    text = healthy.look("--source", out)[1]["FAIL source"]
    assert out in text


@pytest.mark.slow
def test_a_source_of_kafka_answers_or_does_not(healthy: Doctor) -> None:
    cluster = MockKafka()
    cluster.send("scan", b"1")
    address = f"kafka://{cluster.servers}"
    assert "answers" in healthy.look("--source", f"{address}/scan")[1]["ok source"]
    assert "absent" in healthy.look("--source", f"{address}/absent")[1]["FAIL source"]


def test_a_source_of_tiled_answers_or_does_not(healthy: Doctor, tiled: EmbeddedTiled) -> None:
    root: Any = tiled.client()
    name = root.create_container(f"source-{healthy.folder.name}").item["id"]
    uri = tiled.uri.replace("http", "tiled", 1)
    assert "answers" in healthy.look("--source", f"{uri}/{name}")[1]["ok source"]
    assert "no-such" in healthy.look("--source", f"{uri}/no-such")[1]["FAIL source"]
    nowhere = "tiled://127.0.0.1:9/raw"
    assert "does not answer" in healthy.look("--source", nowhere)[1]["FAIL source"]


@pytest.mark.parametrize("address", ["carrier-pigeon://coop", "zmq://127.0.0.1", "kafka://h", "x"])
def test_what_is_no_source_is_told(address: str, healthy: Doctor) -> None:
    code, lines = healthy.look("--source", address)
    assert code == 1
    assert "give" in lines["FAIL source"]


def test_open_runs_of_nodes_that_died_are_counted_and_left_as_they_are(healthy: Doctor) -> None:
    spool = SpoolOptions(str(healthy.folder / "spool"), min_free_bytes=0)
    names = ("checked", "checked", "other")
    made = [Journals(spool, owner=name).create(f"raw-{n}") for n, name in enumerate(names)]
    journals = [journal for journal in made if journal is not None]
    assert len(journals) == 3
    text = healthy.look()[1]["note open runs"]
    assert text.startswith("3 runs of nodes that work now")
    for journal in journals[1:]:
        journal.release()
    text = healthy.look()[1]["note open runs"]
    assert "1 run of nodes that work now" in text
    assert "1 run left by a node that ended or was killed" in text
    assert "start a node with profile checked" in text
    assert "1 run left by nodes of other profiles" in text
    journals[1].folder.joinpath("attempts").write_text("10 3")
    assert "remove attempts in that folder" in healthy.look()[1]["FAIL open runs"]
    (spool.runs / journals[1].derived / "run.json").write_text("{")
    code, lines = healthy.look()
    assert code == 1
    assert journals[1].derived in lines["FAIL open runs"]
    assert "remove" in lines["FAIL open runs"]
    assert {each.name for each in spool.runs.iterdir()} == {each.derived for each in journals}
    journals[0].release()
    assert len(Journals(spool, owner="checked").unfinished()) == 1  # the doctor took none


def test_open_runs_of_another_machine_are_told_with_how_to_adopt_them(healthy: Doctor) -> None:
    spool = SpoolOptions(str(healthy.folder / "spool"), min_free_bytes=0)
    elsewhere = Journals(spool, owner="checked", machine=Machine("node2", "another mark"))
    journal = elsewhere.create("raw")
    assert journal is not None
    journal.release()
    known = (
        this_machine().mark != ""
    )  # most containers have no identity: only the lock counts there
    text = healthy.look()[1]["note open runs"]
    assert ("begun on another machine" in text) is known
    journal.folder.joinpath("adopt").touch()
    assert "left by a node that ended or was killed" in healthy.look()[1]["note open runs"]


@pytest.fixture
def scan(tmp_path: Path) -> Recorder:
    recorder = Recorder()
    with run_engine() as engine:
        engine.subscribe(recorder)
        engine(points(detector_of("inline", tmp_path), 6))
    return recorder


def spooled(doctor: Doctor, scan: Recorder) -> SpoolOptions:
    """Label a scan while Tiled is down; return the spool that has it."""
    spool = SpoolOptions(str(doctor.folder / "spool"), min_free_bytes=0)
    options = TiledOptions(NOWHERE, container=doctor.settings["tiled"]["container"])
    line = Line(TiledSink(options, spool, api_key="key-of-a-test"), doctor.folder / "line")
    emit(scan.documents, line)
    line.settle()  # safe on this disk
    line.close()
    return spool


def test_masks_that_wait_are_told_and_uploaded(
    healthy: Doctor, scan: Recorder, tiled: EmbeddedTiled
) -> None:
    code, output = healthy.run("upload")
    assert (code, "nothing waits in" in output) == (0, True)
    spool = spooled(healthy, scan)
    code, lines = healthy.look()
    assert code == 0
    assert "1 run with 6 rows waits for Tiled" in lines["note waiting masks"]
    assert "`ptychoseg upload`" in lines["note waiting masks"]

    code, output = healthy.run("upload")
    assert code == 0, output
    assert f"run {scan.uid}: 6 rows are in Tiled" in output
    options = TiledOptions(tiled.uri, container=healthy.settings["tiled"]["container"])
    run = find_derived(tiled, Profile(tiled=options), scan.uid)
    assert run["primary"].base["internal"].read()["plateau"].tolist() == list(range(6))
    assert run.metadata["stop"]["account"]["received"] == 6
    assert list(spool.masks.iterdir()) == []
    assert "note waiting masks" not in healthy.look()[1]
    code, output = healthy.run("audit", scan.uid)
    assert code == 0, output


def test_masks_that_cannot_be_uploaded_still_wait(doctor: Doctor, scan: Recorder) -> None:
    spool = spooled(doctor, scan)
    code, output = doctor.run("upload", "--seconds", "1")
    assert code == 1
    assert "still waits" in output
    assert NOWHERE in output
    (folder,) = spool.masks.iterdir()
    (folder / "run.json").write_text(json.dumps({"raw": 1}))
    code, lines = doctor.look()
    assert code == 1
    assert folder.name in lines["FAIL waiting masks"]
