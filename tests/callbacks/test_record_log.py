from pathlib import Path

import pytest
from ptychoseg_callbacks.record_log import RecordLog

RECORDS = [b"first", b"x" * 70_000, b"\x00", b"last"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = RecordLog(tmp_path / "log")
    for record in RECORDS:
        log.append(record)
    log.close()
    return tmp_path / "log"


def records(path: Path) -> list[bytes]:
    log = RecordLog(path)
    found = [record for _, record, _ in log.recover()]
    log.close()
    return found


def test_records_come_back_in_order_and_by_their_place(path: Path) -> None:
    log = RecordLog(path)
    offset = 0
    for record in RECORDS:
        read, offset = log.read(offset)
        assert read == record
    assert offset == log.end
    with pytest.raises(OSError, match="no whole record"):
        log.read(offset)
    log.close()
    assert records(path) == RECORDS


@pytest.mark.parametrize("lost", [1, 3, 4, 5, 12, 15])
def test_torn_record_at_the_end_is_cut_off(path: Path, lost: int) -> None:
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - lost)
    assert records(path) == RECORDS[:3]
    assert path.stat().st_size == whole - 16  # the length, the checksum and "last"
    log = RecordLog(path)
    assert list(log.recover())
    log.append(b"another")
    log.close()
    assert records(path) == [*RECORDS[:3], b"another"]


@pytest.mark.parametrize("tail", [b"\x00" * 100, b"\xff" * 100, b"\x05" + b"\x00" * 11 + b"wrong"])
def test_what_a_loss_of_power_leaves_behind_is_cut_off(path: Path, tail: bytes) -> None:
    with path.open("ab") as file:
        file.write(tail)
    assert records(path) == RECORDS


def test_flipped_bit_ends_the_log_where_it_is(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert records(path) == RECORDS[:1]


def test_file_can_be_read_by_who_holds_it_when_it_has_been_removed(path: Path) -> None:
    log = RecordLog(path)
    path.unlink()
    assert log.read(0)[0] == b"first"
    log.close()


def test_disk_that_is_full_leaves_the_records_before() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full, the disk that is always full")
    log = RecordLog(Path("/dev/full"))
    with pytest.raises(OSError):
        log.append(b"anything")
    assert log.end == 0
    log.close()
