"""A store whose answers to a copy or a delete get lost, while the exporter goes on putting."""

from dataclasses import replace

import pytest

from tests.doubles.faulty_store import FaultyStore
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import RandomFeed
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize(("method", "folder"), [("PUT", PROCESSED), ("DELETE", CHANGES)])
def test_a_copy_or_delete_whose_answer_is_lost_does_no_harm_to_the_next_version(
    stage: Stage, method: str, folder: str
) -> None:
    """It was done. Done again without a look, it would copy over the archive, or delete what nobody has read."""
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    first, other = RandomFeed(seed=12, tickets=9).files(2, rows=6)
    second = replace(first, body=other.body, version=1)
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        fault = store.fault(method, folder, "never")
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.bucket.put(first.key, first.body)
        stage.announce(first.key)
        assert fault.met.wait(30)
        stage.bucket.put(second.key, second.body)
        store.heal()
        stage.wait_for("done", first.key)
        assert stage.waiting() == [second.key]
        stage.announce(second.key)
        done = "SELECT count(*) FROM ingest.ledger WHERE state = 'done'"
        wait_until(lambda: stage.one(done) == 2, "both versions are done")
        consumer.stop()
    archived = stage.bucket.read_all(PROCESSED)
    assert list(archived.values()) == [first.body, second.body]
    assert stage.waiting() == []
    assert_equals_oracle(stage, [first, second])
