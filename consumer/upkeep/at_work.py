"""Who is at work, by the signs that they give into the database and by what the broker says of them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from consumer.postgres import database
from consumer.postgres.database import DATABASE, Role
from consumer.settings import DatabaseSettings
from consumer.upkeep.findings import Finding
from consumer.upkeep.status import ProcessRow
from publisher.broker import channels
from publisher.broker.topology import Queue
from publisher.errors import FleetticketsError
from publisher.heartbeat import ProcessKind
from publisher.settings import BrokerSettings
from publisher.terminal import duration

_STARTING_SECONDS = 30
"""Until a consumer that has begun is known to the broker as well."""
_FRESH_SECONDS = 30
"""What has given a sign since then lives; what is silent for longer may have ended."""


def at_work(broker: BrokerSettings | None, missing_seconds: float, settings: DatabaseSettings) -> Iterator[Finding]:
    """Consumers of files and pollers. Who gives no sign for so many seconds is missed.

    Raises: DependencyDown.
    """
    with database.connect(settings, Role.READ) as connection, database.translated_errors():
        seen = [ProcessRow(**row) for row in database.rows(connection, "heartbeats", "seen")]
    consumers = [one for one in seen if one.kind is ProcessKind.CONSUMER and Queue.FILES.value in one.queues]
    pollers = [one for one in seen if one.kind is ProcessKind.POLLER]
    yield from _consumers(consumers, _served(broker), missing_seconds)
    yield from _missed("poller", pollers, missing_seconds)
    living = _living(pollers, missing_seconds)
    if living:
        yield Finding.ok("pollers", _named(living))
    else:
        do = "fleettickets poll --every 60; nothing, if poll runs in cron, of which nothing is known"
        yield Finding.note("pollers", "none is at work", do)


def _served(broker: BrokerSettings | None) -> int | None:
    """How many consumers the broker gives files to; None where it cannot be asked."""
    if broker is None:
        return None
    try:
        with channels.confirming_channel(broker, "doctor", channels.LOOKING_HEARTBEAT) as channel:
            return channels.queue_depth(channel, Queue.FILES.broker_name)[1]
    except FleetticketsError:  # told where the broker is looked at
        return None


def _consumers(seen: Sequence[ProcessRow], served: int | None, missing_seconds: float) -> Iterator[Finding]:
    living = _living(seen, missing_seconds)
    has_strangers = served is not None and served > len(living)
    if has_strangers and len(living) < len(seen):
        one = min((one for one in seen if one not in living), key=lambda one: one.beat_seconds)
        found = f"{_name(one)} has given no sign for {duration(one.beat_seconds)}, and RabbitMQ gives it files"
        do = f"it stands still, or cannot reach {DATABASE}: look at its log, and end it"
        yield Finding.wrong("consumers", found, do)
    else:
        yield from _missed("consumer", seen, missing_seconds)
        if has_strangers:
            found = f"RabbitMQ gives files to {served}, and {len(living)} give a sign in this database"
            do = "see that all have this DATABASE_URL, and what their logs say of heartbeats"
            yield Finding.note("consumers", found, do)
    if living and served == 0:
        yield _unserved(living)
    elif living:
        yield Finding.ok("consumers", _named(living))
    elif not has_strangers:
        yield Finding.note("consumers", "none is at work, and what comes will wait", "start one: fleettickets consume")
    for one in living:
        if one.paused_why is not None:
            do = "mend what it says; it goes on by itself, and no attempt is spent"
            yield Finding.note("consumers", f"{_name(one)} is paused: {one.paused_why}", do)


def _unserved(living: Sequence[ProcessRow]) -> Finding:
    newest = min(living, key=lambda one: one.beat_seconds)
    found = f"the last sign of {_name(newest)} is {duration(newest.beat_seconds)} old; and RabbitMQ gives files to none"
    runs = (datetime.now(UTC) - newest.started_at).total_seconds() > _STARTING_SECONDS
    if runs and newest.beat_seconds < _FRESH_SECONDS:
        return Finding.wrong("consumers", found, "see that its RABBITMQ_URL is this one, and what its log says")
    return Finding.note("consumers", found, "start one, if it has ended; nothing, if it has just begun")


def _missed(kind: str, seen: Sequence[ProcessRow], missing_seconds: float) -> Iterator[Finding]:
    living = _living(seen, missing_seconds)
    for one in seen:
        if one not in living:
            found = f"no sign of {_name(one)} for {duration(one.beat_seconds)}"
            yield Finding.note(f"{kind}s", found, "nothing, if it was killed: its row goes within a day")


def _living(seen: Sequence[ProcessRow], missing_seconds: float) -> list[ProcessRow]:
    return [one for one in seen if one.beat_seconds < missing_seconds]


def _named(living: Sequence[ProcessRow]) -> str:
    return f"{len(living)} at work: {', '.join(map(_name, living))}"


def _name(one: ProcessRow) -> str:
    return f"{one.host} (pid {one.pid})"
