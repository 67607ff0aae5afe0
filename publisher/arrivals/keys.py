"""The key grammar: which keys of the bucket are change files, and the instant each one names. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

EAT = timezone(timedelta(hours=3), "EAT")
"""East Africa Time, which has no daylight saving: the exporter's clock where a key names no zone."""

SUFFIXES = (".csv", ".csv.gz")
"""What is in a file, its first bytes tell: either name may stand for packed ones."""

_STAMP = re.compile(
    r"(?P<year>\d{4})(?P<dash>-?)(?P<month>\d{2})(?P=dash)(?P<day>\d{2})"
    r"[T_ ]"
    r"(?P<hour>\d{2})(?P<colon>[-:]?)(?P<minute>\d{2})(?:(?P=colon)(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ChangeFileKey:
    """A key that follows the grammar; `time` is the instant in its name, in UTC, to the microsecond."""

    key: str
    time: datetime


@dataclass(frozen=True, slots=True)
class NotAChangeFile:
    """A key that is left where it is; `reason` says which rule it breaks."""

    key: str
    reason: str


def read_key(key: str, changes_prefix: str) -> ChangeFileKey | NotAChangeFile:
    """Judge a key below `changes_prefix`, such as `automations/inc/changes/2026-06-25T142000.csv`."""
    name = key.removeprefix(changes_prefix)
    if "/" in name:
        return NotAChangeFile(key, "in a folder below changes/")
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if suffix is None:
        return NotAChangeFile(key, "not a .csv or .csv.gz file")
    stamp = _STAMP.fullmatch(name[: -len(suffix)])
    if stamp is None:
        return NotAChangeFile(key, "its name is not a timestamp")
    try:
        return ChangeFileKey(key, _instant(stamp))
    except (ValueError, OverflowError):
        return NotAChangeFile(key, "its name is not a date that exists")


def _instant(stamp: re.Match[str]) -> datetime:
    part = stamp.groupdict()
    zone = part["zone"]
    if zone is None:
        tz: timezone = EAT
    elif zone == "Z":
        tz = UTC
    else:
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        tz = timezone(-offset if zone[0] == "-" else offset)
    # Below a microsecond the instants count as equal and the key itself decides.
    microsecond = int((part["fraction"] or "0").ljust(6, "0")[:6])
    return datetime(
        int(part["year"]), int(part["month"]), int(part["day"]),
        int(part["hour"]), int(part["minute"]), int(part["second"] or 0), microsecond, tzinfo=tz,
    ).astimezone(UTC)  # fmt: skip
