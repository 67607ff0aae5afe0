"""Which applied files finish their tails in one go."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from consumer.files.handler import SMALL_BYTES
from consumer.files.outcomes import AlreadyApplied, Applied
from consumer.files.versions import LedgerFile
from consumer.work.breaker import Breaker
from consumer.work.worker import Unfinished
from publisher.arrivals import messages
from publisher.store.bucket import Put

if TYPE_CHECKING:
    from publisher.broker.consuming import Delivery

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def unfinished(
    key: str, *, size: int = 100, is_ours: bool = True, redelivered: bool = False, headers: tuple[str, ...] = ()
) -> Unfinished:
    file = LedgerFile(1, Put(key, "etag", NOW, None), "sha256", "applied", NOW)
    delivery = cast("Delivery", SimpleNamespace(redelivered=redelivered, headers=dict.fromkeys(headers, True)))
    unused = cast("Any", None)
    sighting = cast("Any", SimpleNamespace(size=size))
    applied = Applied(file, "new", unused, {}, sighting, NOW, NOW, NOW, {})
    return Unfinished(delivery, applied if is_ours else AlreadyApplied(file), Breaker(1), 0.0)


def test_small_files_of_a_folder_go_together() -> None:
    one, other = unfinished("inc/changes/a.csv"), unfinished("inc/changes/b.csv", size=SMALL_BYTES)
    assert one.is_plain
    assert other.is_plain
    assert other.goes_with([one])


def test_those_of_another_folder_do_not() -> None:
    assert not unfinished("crq/changes/b.csv").goes_with([unfinished("inc/changes/a.csv")])


def test_two_versions_of_a_key_do_not() -> None:
    """The second one's tail depends on what the first one's left under the key."""
    assert not unfinished("inc/changes/a.csv").goes_with([unfinished("inc/changes/a.csv")])


def test_a_large_one_goes_by_itself() -> None:
    """To copy it takes as long as it does, and the others' keys would be locked all the while."""
    assert not unfinished("inc/changes/a.csv", size=SMALL_BYTES + 1).is_plain


def test_what_came_before_goes_by_itself() -> None:
    """It may be what ended the process, or what failed; the others would share that once more."""
    assert not unfinished("inc/changes/a.csv", redelivered=True).is_plain
    assert not unfinished("inc/changes/a.csv", headers=(messages.LEFT,)).is_plain
    assert not unfinished("inc/changes/a.csv", is_ours=False).is_plain
