"""What an audit makes of books that add up, and of each way in which they may not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptychoseg_stream.health.audit import Books, audit, counted


class Store:
    """A `RawStore` that only counts."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.asked: list[tuple[str, str, str]] = []

    def count(self, run_uid: str, stream: str, data_key: str) -> int:
        self.asked.append((run_uid, stream, data_key))
        return self.frames

    def start_of(self, uid: str) -> None:
        return None

    def notes_of(self, run_uid: str) -> tuple[()]:
        return ()

    def stop_of(self, run_uid: str) -> None:
        return None

    def read(self, run_uid: str, stream: str, data_key: str, first: int, last: int) -> Any:
        return np.zeros((0, 1, 1))


def books_of(rows: int = 6, lost: int = 0, refused: int = 0) -> Books:
    status = ["lost"] * lost + ["refused"] * refused
    status += ["ok"] * (rows - len(status))
    told = {
        "received": rows,
        "written": rows - lost - refused,
        "refused": {"the frame is empty": refused} if refused else {},
        "lost": lost,
        "announced": rows,
    }
    reasons = {"lost": "no such file", "refused": "the frame is empty", "ok": ""}
    table = {
        "raw_index": list(range(rows)),
        "status": status,
        "reason": [reasons[each] for each in status],
    }
    lengths = {"mask": rows, "valid_bits": rows}
    return Books("raw-1", "primary", "det", table, lengths, {"account": told})


def with_account(**changed: Any) -> Books:
    books = books_of()
    return replace(books, stop={"account": {**books.stop["account"], **changed}})


def outcome(books: Books, raw: Any = None) -> dict[str, tuple[str, str]]:
    """Return state and text of each check, by name."""
    checks = list(audit(books, raw))
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.advice for check in checks if check.state == "fail")
    return {check.name: (check.state, check.text) for check in checks}


def failed(books: Books, raw: Any = None) -> dict[str, str]:
    return {name: text for name, (state, text) in outcome(books, raw).items() if state == "fail"}


@pytest.mark.parametrize("books", [books_of(), books_of(0), books_of(8, lost=2, refused=3)])
def test_books_that_add_up_have_no_failure(books: Books) -> None:
    assert failed(books) == {}
    assert failed(books, Store(len(books.table["status"]))) == {}


def test_frames_that_were_lost_are_told_with_their_reason() -> None:
    state, text = outcome(books_of(8, lost=2))["lost"]
    assert state == "note"
    assert "2 frames" in text
    assert "no such file" in text


def with_indices(indices: list[int]) -> Books:
    books = books_of(len(indices))
    return replace(books, table={**books.table, "raw_index": indices})


def test_a_missing_and_a_doubled_row_are_named() -> None:
    text = failed(with_indices([0, 1, 3, 4, 4, 5]))["rows"]
    assert "more than one: 4;" in text
    assert "without any: 2" in text
    assert "not in the order" in failed(with_indices([0, 2, 1, 3]))["rows"]


def test_many_missing_rows_are_told_in_short() -> None:
    text = failed(with_indices([0, 100]))["rows"]
    assert "1, 2, 3, 4, 5 and 94 more" in text


def test_an_array_of_another_length_than_the_table_is_named() -> None:
    found = failed(replace(books_of(), lengths={"mask": 6, "valid_bits": 5, "teacher": 7}))
    assert found["arrays"] == "the table has 6 rows, teacher has 7, valid_bits has 5"


@pytest.mark.parametrize("wrong", ["received", "written", "lost"])
def test_an_account_that_says_something_else_than_the_rows_fails(wrong: str) -> None:
    text = failed(with_account(**{wrong: 99}))["account"]
    assert f"the stop document says {wrong} 99" in text
    assert "received 6 = written 6" in text


def test_an_account_of_refusals_is_summed_over_its_reasons() -> None:
    assert failed(books_of(refused=3)) == {}
    text = failed(with_account(refused={"a": 1, "b": 2}))["account"]
    assert "the stop document says refused 3" in text


def test_a_run_without_a_stop_document_fails() -> None:
    text = failed(replace(books_of(), stop={}))["account"]
    assert "no stop document" in text


def test_an_imbalance_that_the_node_noticed_fails() -> None:
    books = with_account(announced=9, imbalance="the raw run counts 9 frames, 6 were received")
    found = failed(books)
    assert found["balance"] == "the raw run counts 9 frames, 6 were received"
    assert "it has 9 frames by its own stop document, there are 6 rows" in found["raw run"]


@pytest.mark.parametrize("frames", [5, 7])
def test_a_raw_run_of_another_length_fails(frames: int) -> None:
    store = Store(frames)
    text = failed(books_of(), store)["raw run"]
    assert text == f"it has {frames} frames in the raw store, there are 6 rows"
    assert store.asked == [("raw-1", "primary", "det")]


def test_a_raw_run_that_nobody_knows_is_a_note() -> None:
    state, text = outcome(with_account(announced=-1), Store(-1))["raw run"]
    assert state == "note"
    assert "raw-1" in text


def test_what_the_rows_say_is_counted() -> None:
    books = books_of(8, lost=2, refused=3)
    assert counted(books.table) == {"received": 8, "written": 3, "refused": 3, "lost": 2}


def test_a_run_that_a_living_node_has_open_is_waited_for() -> None:
    books = replace(books_of(), stop={}, held=7200.0)
    checks = {check.name: check for check in audit(books, None)}
    assert checks["account"].state == "fail"
    assert "a node on this machine has it open" in checks["account"].text
    assert "closes it after 7200 s without one (`idle_timeout`), as failed" in (
        checks["account"].advice
    )
    checks = {check.name: check for check in audit(books, Store(9))}
    assert "as the raw run ended" in checks["account"].advice
    assert checks["raw run"].state == "note"
    assert "9 frames in the raw store, there are 6 rows so far" in checks["raw run"].text


def test_a_run_that_nobody_has_open_wants_its_node_again() -> None:
    checks = {check.name: check for check in audit(replace(books_of(), stop={}), Store(9))}
    assert "start the node again" in checks["account"].advice
    assert checks["raw run"].state == "fail"
