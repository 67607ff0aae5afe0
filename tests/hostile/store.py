"""A store that is slow, broken or forbidding, for one object or for all."""

from collections.abc import Callable

from tests.hostile.hostility import Act, Hostility
from tests.stage.feeds import COLUMNS, csv
from tests.stage.store import CHANGES


def _named(key: str) -> str:
    """What stands in the path of a request for the key."""
    return key.removeprefix(CHANGES)


def _large(act: Act) -> bytes:
    """Large enough for its first half to be with the database before the second one comes."""
    return csv([act.ticket() | {"note": "n" * 4000} for _ in range(150)], (*COLUMNS, "note"))


def _slow_files(act: Act) -> None:
    """More than there are threads, each announced several times, and each slower than a statement may be."""
    keys = [act.key() for _ in range(10)]
    held = [act.world.store.fault("GET", _named(key), "trickle") for key in keys]
    try:
        for key in keys:
            act.put_good(key, _large(act))
            act.announce(key, times=3)
        act.wait_for(lambda: any(fault.met.is_set() for fault in held), "no slow file is read")
        act.hold()
        act.others_go_on("ten slow files come in, each announced three times")
    finally:
        for fault in held:
            act.world.store.remove(fault)


def _one_object(how: int | str) -> Callable[[Act], None]:
    """It is refused, or broken, until the act is over; it has to be known to the ledger by then."""

    def play(act: Act) -> None:
        keys = [act.key() for _ in range(12)]
        held = [act.world.store.fault("GET", _named(key), how) for key in keys]
        try:
            for key in keys:
                act.put_good(key, csv([act.ticket()]))
                act.announce(key)
            act.others_go_on(f"the store answers {how} for twelve objects")
            known = "SELECT DISTINCT key FROM ingest.ledger WHERE key = ANY(%s)"
            act.wait_for(
                lambda: len(act.stage.query(known, keys)) == len(keys),
                f"the ledger does not know of twelve objects for which the store answers {how}",
            )
        finally:
            for fault in held:
                act.world.store.remove(fault)

    return play


def _all(method: str, how: int | str) -> Callable[[Act], None]:
    def play(act: Act) -> None:
        with act.away():
            held = act.world.store.fault(method, "", how)
            act.hold()
            act.world.store.remove(held)

    return play


def _wide_in_small(act: Act) -> None:
    """A file that is cut off by the store in the middle of its body, again and again."""
    key = act.key()
    held = act.world.store.fault("GET", _named(key), "cut")
    try:
        act.put_good(key, csv([act.ticket() | {"note": "n" * 100_000}], (*COLUMNS, "note")))
        act.announce(key)
        act.others_go_on("one object always breaks off")
    finally:
        act.world.store.remove(held)


HOSTILITIES = [
    Hostility("ten files that trickle", "nobody", _slow_files),
    Hostility("500 for twelve objects", "nobody", _one_object(500)),
    Hostility("403 for twelve objects", "nobody", _one_object(403)),
    Hostility("an object that always breaks off", "nobody", _wide_in_small),
    Hostility("500 for every read", "nobody", _all("GET", 500)),
    Hostility("503 for every copy", "nobody", _all("PUT", 503)),
    Hostility("403 for every copy", "nobody", _all("PUT", 403)),
    Hostility("500 for every delete", "nobody", _all("DELETE", 500)),
    Hostility("reads that are reset", "nobody", _all("GET", "reset")),
    Hostility("answers that come late", "nobody", _all("GET", "late")),
    Hostility("deletes whose answer is lost", "nobody", _all("DELETE", "lost")),
]
