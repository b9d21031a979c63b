"""What settings for SASL and TLS do on the wire, against a gate that speaks so much Kafka."""

import datetime
import ipaddress
import logging
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ptychoseg_stream.sources.kafka.documents import KafkaDocuments
from ptychoseg_stream.sources.kafka.options import KafkaOptions
from ptychoseg_stream.sources.kafka.quiet import Quiet
from ptychoseg_stream.sources.kafka.secrets import CarefulLog, Secrets

HANDSHAKE, VERSIONS, AUTHENTICATE = 17, 18, 36
KNOWN = [
    (0, 0, 7),
    (1, 0, 11),
    (3, 0, 2),
    (HANDSHAKE, 0, 1),
    (VERSIONS, 0, 0),
    (AUTHENTICATE, 0, 0),
]
REFUSED = 58  # SASL_AUTHENTICATION_FAILED
PASSWORD = "hunter2-of-a-test"
LIMIT = 40.0  # s until a test gives up waiting


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class Gate:
    """A broker that asks who is there, and lets nobody in.

    Attributes
    ----------
    shown : list of bytes
        What clients said to be let in.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.shown: list[bytes] = []
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.servers = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, target, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(LIMIT)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rwb") as stream:
                while size := stream.read(4):
                    self._answer(stream, stream.read(*struct.unpack(">i", size)))
        except (OSError, ValueError):  # the client left, or does not trust us
            connection.close()

    def _answer(self, stream, request: bytes) -> None:
        key, version, number = struct.unpack(">hhi", request[:8])
        body = b""
        if key == VERSIONS:
            body = struct.pack(">hi", 35 if version else 0, len(KNOWN))  # 35: ask as version 0
            body += b"".join(struct.pack(">hhh", *known) for known in KNOWN)
        elif key == HANDSHAKE:
            body = struct.pack(">hi", 0, 1) + text("PLAIN")
        elif key == AUTHENTICATE:
            (client,) = struct.unpack(">h", request[8:10])
            self.shown.append(request[10 + client + 4 :])
            told = f"no {self.shown[-1].decode()}".replace(
                "\0", " "
            )  # a broker that repeats what it was told
            body = struct.pack(">h", REFUSED) + text(told) + struct.pack(">i", 0)
        answer = struct.pack(">i", number) + body
        stream.write(struct.pack(">i", len(answer)) + answer)
        stream.flush()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file with the key and the certificate of this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gate of a test")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "gate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def tls_gate(certificate: Path) -> Iterator[Gate]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    gate = Gate(context)
    yield gate
    gate.close()


def source_at(gate: Gate, protocol: str, **more: str) -> KafkaDocuments:
    config = {
        "security.protocol": protocol,
        "sasl.mechanism": "PLAIN",
        "sasl.username": "node",
        "sasl.password": "env:WORD",
        **{key.replace("_", "."): value for key, value in more.items()},
    }
    options = KafkaOptions(config=config, settle=0.1)
    return KafkaDocuments(f"kafka://{gate.servers}/scan", options, {"WORD": PASSWORD})


def messages_of(source: KafkaDocuments, caplog: pytest.LogCaptureFixture, part: str) -> str:
    """Run a source until the log holds something; return the log."""
    stopping = threading.Event()
    thread = threading.Thread(target=source.run, args=(lambda *_: 1, stopping))
    with caplog.at_level(logging.DEBUG):
        thread.start()
        end = time.monotonic() + LIMIT
        while part not in caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        stopping.set()
        thread.join(LIMIT)
    assert not thread.is_alive()
    return caplog.text


def test_user_and_password_reach_the_broker_and_no_line_of_the_log(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    told = messages_of(source_at(gate, "SASL_PLAINTEXT"), caplog, "check security.protocol")
    assert gate.shown[0] == f"\0node\0{PASSWORD}".encode()
    assert "check security.protocol, sasl.username and sasl.password in config" in told
    assert "***" in told  # the broker repeated it
    assert PASSWORD not in told


def test_over_tls_they_reach_a_broker_whose_certificate_is_trusted(
    tls_gate: Gate, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = source_at(tls_gate, "SASL_SSL", ssl_ca_location=str(certificate))
    told = messages_of(source, caplog, "check security.protocol")
    assert tls_gate.shown[0] == f"\0node\0{PASSWORD}".encode()
    assert PASSWORD not in told


def test_a_broker_whose_certificate_is_not_trusted_is_told_nothing(
    tls_gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    told = messages_of(source_at(tls_gate, "SASL_SSL"), caplog, "check ssl.ca.location")
    assert "certificate" in told
    assert tls_gate.shown == []


def test_what_the_doctor_asks_holds_no_password(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        fault = source_at(gate, "SASL_PLAINTEXT").probe(3.0)
    assert fault
    assert gate.shown
    assert PASSWORD not in fault + caplog.text


def test_secrets_are_hidden_wherever_librdkafka_repeats_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secrets = Secrets(["hunter2", "hunter2-longer", ""])
    assert secrets.hide("a hunter2-longer and a hunter2") == "a *** and a ***"
    error = KafkaError(KafkaError._AUTHENTICATION, "no hunter2")
    assert secrets.text_of(error) == "no ***"
    assert secrets.text_of(KafkaException(error)) == "no ***"
    assert secrets.text_of(KafkaException("hunter2")) == "***"
    CarefulLog(logging.getLogger("test"), secrets).log(logging.ERROR, "%s: %s", "x", "hunter2")
    assert caplog.messages == ["x: ***"]


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_librdkafka_repeats_is_told_once_in_a_while_with_a_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    careful = CarefulLog(logging.getLogger("test"), Secrets(), Quiet(300.0, clock))
    down = "Connect to ipv4#127.0.0.1:%d failed: Connection refused (after %dms in state CONNECT)"
    for number in range(450):
        careful.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#consumer-1", down % (9, number))
    careful.log(logging.ERROR, "%s [%s] %s", "SSL", "rdkafka#consumer-1", "another kind")
    assert len(caplog.messages) == 2
    assert "Connection refused" in caplog.messages[0]
    clock.now = 301.0
    careful.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#consumer-1", down % (9, 7))
    assert caplog.messages[2].endswith("(449 more like it since the last one)")


def test_kinds_of_lines_without_end_cost_no_memory_without_end() -> None:
    quiet = Quiet(300.0, Clock())
    letters = [chr(0x4E00 + number) for number in range(1000)]
    assert all(quiet.passes(logging.ERROR, each) == 0 for each in letters)
    assert quiet.passes(logging.ERROR, letters[-1]) == -1
    assert quiet.passes(logging.ERROR, letters[0]) == 0  # forgotten


def test_a_broker_that_is_not_there_is_told_in_a_few_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    source = KafkaDocuments(f"kafka://{address}/test.documents", KafkaOptions(settle=0.0))
    stopping = threading.Event()
    threading.Timer(3.0, stopping.set).start()
    with caplog.at_level(logging.INFO):
        source.run(lambda name, doc: 0, stopping)
    refused = [line for line in caplog.messages if "Connection refused" in line]
    assert 1 <= len(refused) <= 2  # librdkafka's line, and ours
    assert any("are the brokers running" in line for line in refused)
