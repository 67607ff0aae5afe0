"""Which applied files finish their tails in one go."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from consumer.files.outcomes import AlreadyApplied
from consumer.files.versions import LedgerFile
from consumer.work.breaker import Breaker
from consumer.work.worker import Unfinished
from publisher.store.bucket import Put

if TYPE_CHECKING:
    from publisher.broker.consuming import Delivery

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def unfinished(key: str, *, redelivered: bool = False) -> Unfinished:
    file = LedgerFile(1, Put(key, "etag", NOW, None), "sha256", "applied", NOW)
    delivery = cast("Delivery", SimpleNamespace(redelivered=redelivered))
    return Unfinished(delivery, AlreadyApplied(file), Breaker(1), 0.0)


def test_the_first_goes_whatever_it_is() -> None:
    assert unfinished("inc/changes/a.csv", redelivered=True).goes_with([])


def test_files_of_a_folder_go_together() -> None:
    assert unfinished("inc/changes/b.csv").goes_with([unfinished("inc/changes/a.csv")])


def test_those_of_another_folder_do_not() -> None:
    assert not unfinished("crq/changes/b.csv").goes_with([unfinished("inc/changes/a.csv")])


def test_two_versions_of_a_key_do_not() -> None:
    """The second one's tail depends on what the first one's left under the key."""
    assert not unfinished("inc/changes/a.csv").goes_with([unfinished("inc/changes/a.csv")])


def test_what_was_delivered_before_goes_by_itself() -> None:
    """It may be what ended the process before, and would have the others with it once more."""
    plain, again = unfinished("inc/changes/a.csv"), unfinished("inc/changes/b.csv", redelivered=True)
    assert not again.goes_with([plain])
    assert not plain.goes_with([again])
