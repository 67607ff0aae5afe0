"""The message contract: what travels between the store, the poller, the consumer and its follow-ons. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SeenBy = Literal["notification", "poller"]

# Header names. RabbitMQ's own x-death and x-delivery-count are reset by a wait queue, so these are ours.
ATTEMPTS = "fleettickets-attempts"  # the failed tries that it has behind it
AGAIN = "fleettickets-again"  # 'retry' or 'replay': take a file up although the ledger has it as failed
REASON = "fleettickets-reason"  # of a dead letter: a short stable word
ERROR = "fleettickets-error"  # of a dead letter: what happened, 2,000 characters at the most
FINGERPRINT = "fleettickets-fingerprint"  # of a dead letter: equal for those of one cause
KEY = "fleettickets-key"  # of a dead letter: of which file
ETAG = "fleettickets-etag"  # the version of the key that failed, as it was read; of a replay, the one that it releases
DEAD_AT = "fleettickets-dead-at"  # of a dead letter: since when, UTC
HISTORY = "fleettickets-history"  # one line for each failed try and each replay, oldest first
REPLAYS = "fleettickets-replays"  # how often a person has sent it back to work
ALLOWED = "fleettickets-allowed"  # of a replay: what a person lets the version that it releases do
LEFT = "fleettickets-left"  # it was left to others: one who serves its feed, or has its file in hand
PROBED = "fleettickets-probed"  # it was tried while everything failed, and goes behind what was not

MISSING_COLUMNS = "missing columns"
"""A value of ALLOWED: columns that the exporter always writes may be missing, and are empty then."""
_MAX_COUNT = 1000
_HISTORY_LINES = 20
_LINE_CHARACTERS = 300
_ETAG_CHARACTERS = 200
# All headers of a message have to fit into one frame, 128 KB as RabbitMQ has it: what is published again is therefore
# made anew of values that have a bound, whoever wrote the ones that came.


def attempts(headers: Mapping[str, Any]) -> int:
    """The failed tries that a message has behind it, as far as its headers can be believed."""
    return _count(headers.get(ATTEMPTS))


def replays(headers: Mapping[str, Any]) -> int:
    """How often a person has sent it back to work, as far as its headers can be believed."""
    return _count(headers.get(REPLAYS))


def _count(claimed: object) -> int:
    # Python takes a truth for a number.
    return min(max(claimed, 0), _MAX_COUNT) if isinstance(claimed, int) and claimed is not True else 0


def kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    """What a message that is put aside, with no attempt spent, has to have when it comes back; each within bounds."""
    again = headers.get(AGAIN)
    found: dict[str, Any] = {AGAIN: again} if again in ("retry", "replay") else {}
    if counted := attempts(headers):
        found[ATTEMPTS] = counted
    if replayed := replays(headers):
        found[REPLAYS] = replayed
    if lines := lines_of(headers):
        found[HISTORY] = lines
    if named := etag(headers):
        found[ETAG] = named
    if allows_missing(headers):
        found[ALLOWED] = MISSING_COLUMNS
    return found | {name: True for name in (LEFT, PROBED) if headers.get(name) is True}


def etag(headers: Mapping[str, Any]) -> str:
    """Of the version that a message is about, "" where its headers tell none that is one."""
    named = headers.get(ETAG)
    return named if isinstance(named, str) and len(named) <= _ETAG_CHARACTERS else ""


def allows_missing(headers: Mapping[str, Any]) -> bool:
    """Whether a person has let the version go without columns that the exporter always writes."""
    return headers.get(AGAIN) == "replay" and headers.get(ALLOWED) == MISSING_COLUMNS


def lines_of(headers: Mapping[str, Any]) -> list[str]:
    """A message's history as far as its headers tell, oldest first; the oldest lines fall off."""
    lines = headers.get(HISTORY)
    return [str(line)[:_LINE_CHARACTERS] for line in lines[-_HISTORY_LINES:]] if isinstance(lines, list) else []


def history(headers: Mapping[str, Any], *, also: str) -> list[str]:
    """What a message has behind it, and one line more."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [*lines_of(headers), f"{now} {also}"[:_LINE_CHARACTERS]][-_HISTORY_LINES:]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ChangeFileArrived(_Message):
    """A key that somebody saw in the bucket. A hint: what the bucket has when it is read is the truth."""

    type: Literal["ChangeFileArrived"] = "ChangeFileArrived"
    bucket: Annotated[str, Field(min_length=1, max_length=255)]
    keys: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    """How the key may read, likeliest first: stores differ in whether they form-encode it."""
    etag: Annotated[str, Field(max_length=_ETAG_CHARACTERS)] = ""
    size: int | None = None
    seen_by: SeenBy
    event_time: datetime | None = None
    """When the store says it happened, UTC."""


class GeocodeTickets(_Message):
    """Find the place of tickets that have none yet."""

    type: Literal["GeocodeTickets"] = "GeocodeTickets"
    requests: tuple[int, ...]
    """Ids of the outbox rows that this one message stands for."""


class CaptureHistory(_Message):
    """Run the history capture, covering every file applied before it starts."""

    type: Literal["CaptureHistory"] = "CaptureHistory"
    requests: tuple[int, ...]


FollowOn = GeocodeTickets | CaptureHistory
