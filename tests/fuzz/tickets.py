"""Tickets as an exporter knows them: each value as it is written, and as it has to be taken.

It is a part of the oracle, so it shares nothing with what it judges.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random

EAT = timezone(timedelta(hours=3))
BEGIN = datetime(2026, 6, 25, 8, 0, tzinfo=EAT)
NOTHING = ("NULL", "null", r"\N", "nan", "None", "N/A", "n/a", "-", "--", "#N/A")
NEVER = (
    "0001-01-01T00:00:00", "1753-01-01", "1899-12-30", "1900-01-01 00:00:00", "1970-01-01 00:00", "2999-12-31",
    "9999-12-31 23:59:59",
)  # fmt: skip
INVISIBLE = "\u200b\ufeff\u200e\u202c\u00ad"
SPACES = (" ", "\u00a0", "  ", "\u2009")
_NAMES = ("Amina", "Wanjikũ", "Otieno", "Nyong'o", "Mwangi wa Njoroge", "Ng'ang'a", "Zoë", "Juma Mūsa", "王芳")
_STATUSES = ("New", "Assigned", "In Progress", "Closed", "Pending - Customer")
_REGIONS = ("Nairobi", "Coast", "Mt. Kenya", "Rift Valley")
_PLACES = (("Karen",), ("Nairobi", "West"), ("Thika", "Rd"), ("Mūthaiga", "North"), ("Kwa", "Ng'ombe"), ("6", "inch"))
_WORDS = ("fibre cut", "waiting", "mteja hayupo", "see the permit", "gate 4", "kata ya waya", "ok", "no power; rain")
_JOINTS = (" ", ", ", "; ", " | ", ",", '"', ' "', '" ', '", "', "\n", "\r\n", "\n\n", ",\n", "\t")


@dataclass(frozen=True, slots=True)
class Value:
    """What is written of a value, and what has to be taken; None is nothing."""

    written: str
    taken: str | None
    instant: datetime | None = None
    is_never: bool = False


NO_VALUE = Value("", None)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What has to come of a row: `values` are those of `raw` that there are."""

    ticket_id: str
    values: dict[str, str]
    closed_at: datetime | None
    nevers: int


def _said(text: str) -> Value:
    return Value(text, text)


def _owner(rng: Random, number: int) -> Value:
    return _said(f"{rng.choice(_NAMES)} no. {number}")


def _text(rng: Random, number: int) -> Value:
    """Maybe of several lines, none of which begins like an id."""
    text = f"tkt no. {number}"
    for _ in range(rng.randrange(5)):
        text += rng.choice(_JOINTS) + rng.choice(_WORDS)
    return _said(text)


def _place(rng: Random, _: int) -> Value:
    words = rng.choice(_PLACES)
    written = rng.choice(SPACES).join(words)
    if rng.random() < 0.2:
        written += rng.choice(INVISIBLE)
    return Value(written, " ".join(words))


def _timestamp(rng: Random, number: int) -> Value:
    if rng.random() < 0.15:
        text = rng.choice(NEVER)
        return Value(text, text, None, is_never=True)
    at = BEGIN + timedelta(minutes=number % 10_000, seconds=rng.choice((0, 7)))
    forms: Sequence[tuple[str, datetime]] = (
        (at.strftime("%Y-%m-%d %H:%M:%S"), at),
        (at.strftime("%Y-%m-%dT%H:%M:%S"), at),
        (at.strftime("%Y-%m-%d %H:%M"), at.replace(second=0)),
        (at.strftime("%Y-%m-%dT%H:%M:%S+03:00"), at),
        (at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.250Z"), at.replace(microsecond=250_000)),  # noqa: UP017
        (at.strftime("%Y-%m-%d"), at.replace(hour=0, minute=0, second=0)),
    )
    text, instant = rng.choice(forms)
    return Value(text, text, instant)


def _of(*texts: str, taken: Callable[[str], str] = str) -> Callable[[Random, int], Value]:
    def chosen(rng: Random, _: int) -> Value:
        text = rng.choice(texts)
        return Value(text, taken(text))

    return chosen


TIMESTAMPS = (
    "created_at_service", "scheduled_at", "closed_at", "first_seen_at", "last_seen_at", "source_created_at",
    "source_updated_at",
)  # fmt: skip
MAKERS: dict[str, Callable[[Random, int], Value]] = {
    "normalized_status": _of("open", "closed"),
    "raw_status": _of(*_STATUSES, taken=str.upper),
    "bucket": _of("A", "0-4h"),
    "is_actionable": _of("true", "False", "t", "0"),
    "cluster": _place,
    "region": _of(*_REGIONS, taken=str.lower),
    "location_name": _place,
    "assigned_team": _text,
    "owner": _owner,
    "sla_status": _of("within", "breached, twice", 'so-called "ok"', '6" duct'),
    "mttr": _of("90", "90.5", "-1", "0"),
    "latitude": _of("-1.2921"),
    "longitude": _of("36.8219"),
    "is_alarm": _of("false", "0"),
    "department": _text,
    "service_type": _of("FTTH", "-", "NULL"),
} | dict.fromkeys(TIMESTAMPS, _timestamp)
ALWAYS = (
    "normalized_status", "raw_status", "bucket", "is_actionable", "cluster", "region", "location_name",
    "assigned_team", "owner", "sla_status", "mttr", *TIMESTAMPS,
)  # fmt: skip
OPTIONAL = ("latitude", "longitude", "is_alarm", "department", "service_type")
NARROW = ("raw_status", "location_name", "owner")
UNLOOKED_AT = ("department", "service_type")
"""In them a word for nothing is a word."""
UNDECLARED = ("Note", "zone_name", "Kata")


def undeclared(rng: Random, number: int) -> Value:
    return rng.choice((_text, _owner, _of(*NOTHING)))(rng, number)


def plain(column: str) -> Value:
    """The simplest one."""
    if column in TIMESTAMPS:
        return Value("2026-06-25 08:00:00", "2026-06-25 08:00:00", BEGIN)
    texts = {"is_actionable": "true", "mttr": "90", "is_alarm": "false", "latitude": "-1.2", "longitude": "36.8"}
    return _said(texts.get(column, "x")) if column != "raw_status" else Value("New", "NEW")


def _uuid(number: int) -> str:
    return str(uuid.UUID(int=Random(number).getrandbits(128), version=4))


ID_FORMS: tuple[Callable[[int], str], ...] = (
    "INC-{:06d}".format,
    "{:05d}".format,
    "E14-{}".format,
    "WO{:010d}".format,
    "2026/06/{:04d}".format,
    "NBI_FTTH.{}#a".format,
    _uuid,
    lambda number: f"5003{Random(number).getrandbits(44):011X}"[:15],
    "T{:03d}-Kisumu-Ndogo".format,
)


def respelled_id(text: str, how: int, rng: Random) -> str:
    """The same id as exporters and spreadsheets write it, too."""
    place = rng.randrange(len(text) + 1)
    return (
        text[:place] + rng.choice(INVISIBLE) + text[place:],
        f'="{text}"',
        f"'{text}",
        f'"{text}"',
        text.replace("-", "\u2011"),
        f"\u00a0{text}\u200b ",
    )[how % 6]


def spoilt_id(text: str, how: int, rng: Random) -> str:
    """What was an id, and cannot be known any more."""
    place = rng.randrange(1, len(text))
    return (
        "1.23E+11",
        f"{rng.randrange(10_000, 99_999)}.0",
        f"{text[:place]}\x07{text[place:]}",
        f"{text[:place]}\n{text[place:]}",
        "",
        rng.choice(NOTHING),
        "1,2E+5",
    )[how % 7]
