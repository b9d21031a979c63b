import pytest
from ptychoseg_callbacks.routing import Router


def opened(*runs: str) -> Router[str]:
    router: Router[str] = Router()
    for run in runs:
        router.add(run, f"item of {run}")
    return router


def test_documents_find_their_run_by_what_they_refer_to() -> None:
    router = opened("a", "b")
    assert router.find("descriptor", {"uid": "d", "run_start": "a"}) == "item of a"
    assert router.find("resource", {"uid": "r", "run_start": "b"}) == "item of b"
    assert router.find("stream_resource", {"uid": "s", "run_start": "a"}) == "item of a"
    assert router.find("event", {"descriptor": "d"}) == "item of a"
    assert router.find("event_page", {"descriptor": "d"}) == "item of a"
    assert router.find("stream_datum", {"descriptor": "d", "stream_resource": "s"}) == "item of a"
    assert router.find("datum", {"resource": "r"}) == "item of b"
    assert router.find("datum_page", {"resource": "r"}) == "item of b"
    assert router.find("stop", {"run_start": "b"}) == "item of b"


def test_what_refers_to_nothing_known_has_no_run() -> None:
    router = opened("a")
    assert router.find("event", {"descriptor": "unheard of"}) is None
    assert router.find("descriptor", {"uid": "d", "run_start": "unheard of"}) is None
    assert router.find("event", {}) is None
    assert router.find("bulk_events", {"anything": 1}) is None
    assert opened().find("resource", {"uid": "r"}) is None


def test_resource_that_does_not_name_its_run_belongs_to_the_run_heard_of_last() -> None:
    router = opened("a", "b")
    router.find("descriptor", {"uid": "d", "run_start": "a"})
    assert router.find("resource", {"uid": "r"}) == "item of a"
    assert router.find("datum", {"resource": "r"}) == "item of a"


def test_resource_that_does_not_name_its_run_belongs_to_an_open_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = {"item of c"}
    router: Router[str] = Router(lambda item: item not in done)
    for run in "abc":
        router.add(run, f"item of {run}")
    assert router.find("resource", {"uid": "r"}) == "item of b"
    assert "2 are open: taken to be of run b" in caplog.text
    done.add("item of b")
    assert router.find("resource", {"uid": "s"}) == "item of a"
    done.add("item of a")
    assert router.find("resource", {"uid": "t"}) is None
    assert len(caplog.records) == 1


def test_references_of_a_removed_run_can_be_known_again() -> None:
    router = opened("a", "b")
    router.find("descriptor", {"uid": "d", "run_start": "a"})
    router.find("descriptor", {"uid": "e", "run_start": "b"})
    router.find("stream_resource", {"uid": "s", "run_start": "a"})
    references = router.remove("a")
    assert references == ["d", "s"]
    router.add("a", "again", references)
    assert router.find("event", {"descriptor": "d"}) == "again"
    assert router.find("event", {"descriptor": "e"}) == "item of b"


def test_removed_run_leaves_nothing_behind() -> None:
    router = opened("a", "b")
    router.find("descriptor", {"uid": "d", "run_start": "a"})
    router.remove("a")
    assert router.find("event", {"descriptor": "d"}) is None
    assert len(router) == 1
    router.add("a", "again")
    assert router.find("event", {"descriptor": "d"}) is None


def test_items_come_in_the_order_in_which_they_were_heard_of() -> None:
    router = opened("a", "b", "c")
    router.find("descriptor", {"uid": "d", "run_start": "a"})
    assert list(router) == ["item of b", "item of c", "item of a"]
