"""Change files that a stranger who may write to `changes/` puts there, and what exporters do by mistake."""

import gzip
import time
from collections.abc import Callable
from functools import cache

from tests.hostile.hostility import Act, Hostility
from tests.stage.feeds import COLUMNS, OddKeys, csv, lines
from tests.stage.store import CHANGES

MB = 1 << 20


def _bad(name: str, body: Callable[[Act], bytes], *reasons: str) -> Hostility:
    return Hostility(name, "PUT", lambda act: _discard(act.bad_file(body(act), *reasons)))


def _good(name: str, body: Callable[[Act], bytes]) -> Hostility:
    return Hostility(name, "PUT", lambda act: _discard(act.good_file(body(act))))


def _discard(_key: str) -> None:
    """An act gives nothing."""


def _wide_header(act: Act) -> bytes:
    names = ["ticket_id", *(f"{number:04}{'n' * 996}" for number in range(1999))]
    return lines([names, *([f"INC8{act.number:05}{row:04}", *([""] * 1999)] for row in range(300))])


def _many_columns(act: Act) -> bytes:
    """As wide as an honest exporter might get, and as sparse."""
    names = [*COLUMNS, *(f"note {number}" for number in range(150))]
    return lines([names, *([act.ticket()["ticket_id"], *([""] * (len(names) - 2)), "x"] for _ in range(40))])


def _rows(act: Act, values: list[dict[str, str]]) -> bytes:
    return csv([act.ticket() | value for value in values], (*COLUMNS, "note"))


def _bad_rows(count: int) -> bytes:
    return csv([{"created_at_service": "yesterday"}] * count)


def _odd_keys(act: Act) -> None:
    names = OddKeys(act.random.randrange(60)).ignored
    names += [
        f"{CHANGES}{odd}" for odd in ("../2026-06-25T142000.csv", "2026-02-30T142000.csv", "x" * 900, "''; --.csv")
    ]
    for number, key in enumerate(names):
        stem, dot, suffix = key.rpartition(".")
        key = f"{stem} {act.number}-{number}{dot}{suffix}" if dot else f"{key} {act.number}-{number}"  # noqa: PLW2901
        act.put(key, csv([act.ticket()]))
        act.record.ignored.add(key)
        act.announce(key)


def _returns(act: Act, *, at_once: bool) -> None:
    """A, then B, then A again under one key. B may be overwritten before anybody reads it; the last one counts."""
    key, row = act.key(), act.ticket()
    first, second = csv([row]), csv([row | {"owner": "another"}])
    act.put(key, first)
    act.announce(key)
    if not at_once:
        act.wait_for(lambda: not act.stage.bucket.keys(key), "the first version is not archived")
    act.put(key, second)
    act.announce(key)
    # A store that ignores conditions loses what is put between the last look at a key and its delete.
    act.wait_for(lambda: not act.stage.bucket.keys(key), "the second version is not archived")
    act.put_good(key, first, version=2)
    act.announce(key, times=act.random.choice((0, 1, 3)))


def _returns_before_its_tail(act: Act) -> None:
    """The first A could not be archived, and whoever comes back to it later finds another put of the same bytes."""
    key, row = act.key(), act.ticket()
    first, second = csv([row]), csv([row | {"owner": "another"}])
    held = act.world.store.fault("PUT", key.removeprefix(CHANGES), 403)
    try:
        act.put(key, first)
        act.announce(key)
        act.has_to_be_applied(key, "the first version is not applied")
    finally:
        act.world.store.remove(held)
    act.put(key, second)
    act.announce(key)
    act.wait_for(lambda: not act.stage.bucket.keys(key), "the second version is not archived")
    time.sleep(act.random.choice((0, 40, 75)))
    act.put_good(key, first, version=2)


@cache
def _bomb() -> bytes:
    return gzip.compress(csv([]) + b",\n" * (1 << 27))


HOSTILITIES = [
    _bad("a header of 2,000 names of 1,000 characters", _wide_header),
    _bad("a line of quotes", lambda act: b"ticket_id,owner\nINC2," + b'"' * (17 * MB) + b"\n%d" % act.number),
    _bad("a field without an end", lambda _: b"ticket_id,owner\nINC2," + b"x" * (17 * MB)),
    _bad("a million columns", lambda _: b"ticket_id," + b"c," * 1_000_000 + b"\n", "too many columns"),
    _bad("nothing but bad rows", lambda _: _bad_rows(50_000)),
    _bad("a header and no rows of its width", lambda _: b"ticket_id,owner\n" + b"a,b,c,d\n" * 1000),
    _bad("Latin-1", lambda act: csv([act.ticket()] * 12).replace(b"Westlands", b"M\xfcnchen"), "not UTF-8"),
    _bad("UTF-16 without its mark", lambda act: csv([act.ticket()]).decode().encode("utf-16-le"), "not UTF-8"),
    _bad("gzip, cut off", lambda act: gzip.compress(csv([act.ticket()] * 100))[:-9], "cut off"),
    _bad("gzip of nothing, 256 megabytes", lambda _: _bomb(), "unpacked too large"),
    _bad("a zip archive", lambda act: b"PK\x03\x04%d" % act.number, "not CSV"),
    _bad("without what is always written", lambda act: b"ticket_id,owner\nINC2,%d\n" % act.number, "columns missing"),
    _bad(
        "two exports without a line end between", lambda act: csv([act.ticket()])[:-1] + b"owner,ticket_id,raw_status\n"
    ),
    _bad("no ticket_id", lambda _: b"owner,cluster\nOtieno,Nyali\n"),
    _bad("nothing at all", lambda _: b""),
    Hostility("a key of the year 9998", "PUT", lambda act: _discard(_from_the_future(act))),
    _good("an id of 200 characters", lambda act: _rows(act, [{"ticket_id": f"{act.number}-" + "i" * 195}, {}])),
    _good("NULs in a row", lambda act: _rows(act, [{"owner": "nul\0byte"}, {}, {}])),
    _good("characters that JSON spells with six", lambda act: _rows(act, [{"note": "\x01" * 100_000}, {}])),
    _good("one id on 3,000 rows", lambda act: csv([act.ticket()] * 3000)),
    _good("150 columns, nearly all empty", _many_columns),
    Hostility("odd keys", "PUT", _odd_keys),
    Hostility("A, B, A under one key", "nobody", lambda act: _returns(act, at_once=False)),
    Hostility("A, B within a second, A under one key", "nobody", lambda act: _returns(act, at_once=True)),
    Hostility("A could not be archived, B, A", "nobody", _returns_before_its_tail, needs=240),
]


def _from_the_future(act: Act) -> str:
    key = f"{CHANGES}9998-01-01T{act.number // 3600:02}{act.number // 60 % 60:02}{act.number % 60:02}.csv"
    return act.bad_file(csv([act.ticket()]), "from the future", key=key)
