from pathlib import Path

import pytest
from ptychoseg_callbacks.journals.record_log import RecordLog

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


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_flipped_bit_costs_one_record_and_no_other(path: Path) -> None:
    flipped(path, 1000)
    before = path.stat().st_size
    log = RecordLog(path)
    assert [record for _, record, _ in log.recover()] == [RECORDS[0], *RECORDS[2:]]
    assert log.damaged == 1
    assert log.append(b"another") == before
    log.close()
    assert records(path) == [RECORDS[0], *RECORDS[2:], b"another"]


def test_length_that_cannot_be_right_ends_the_log_where_it_is(path: Path) -> None:
    flipped(path, 17 + 4)  # of the second record
    assert records(path) == RECORDS[:1]
    assert path.stat().st_size == 17


def test_place_behind_a_damaged_record_is_known(path: Path) -> None:
    flipped(path, 15)
    log = RecordLog(path)
    with pytest.raises(OSError, match="no whole record"):
        log.read(0)
    assert log.following(0) == 17
    assert log.read(17)[0] == RECORDS[1]
    assert log.following(log.end) == 0
    log.close()


def test_log_that_was_closed_touches_no_other_file(path: Path, tmp_path: Path) -> None:
    log = RecordLog(path)
    log.close()
    with (tmp_path / "other").open("w+b") as other:  # gets the number of the one that was closed
        with pytest.raises(OSError):
            log.append(b"x")
        with pytest.raises(OSError):
            log.read(0)
        with pytest.raises(OSError):
            log.sync()
        other.seek(0, 2)
        assert other.tell() == 0
    assert records(path) == RECORDS


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
