"""Each dependency: its version, what it can do, and what to do if it cannot. Changes nothing that anybody else sees."""

import re
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from psycopg import errors

from consumer.feeds.feed import Feeds
from consumer.files.rehearsal import rehearse, rehearsed_file
from consumer.geocoding.locationiq import Geocoder
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings, GeocoderSettings
from consumer.upkeep import canary
from consumer.upkeep.alerting import AlertReceiver, trial
from consumer.upkeep.at_work import at_work
from consumer.upkeep.findings import Finding, Journey, Level
from publisher.broker import broker_users, channels, management, topology
from publisher.broker.hearing import hearing
from publisher.errors import DependencyDown, FleetticketsError, HeldByAnother, Misconfigured, Permanent, Refused
from publisher.settings import BrokerSettings, BucketSettings
from publisher.store import notifications
from publisher.store.bucket import Bucket
from publisher.store.conditions import try_conditions
from publisher.store.notifications import Notifications

_OLDEST_POSTGRES = 140000
_OLDEST_RABBITMQ = (3, 10)
_NAMED = 3
_TOPOLOGY, _MISSING = "topology", "missing: "

LookedAt = TypeVar("LookedAt")


@dataclass(frozen=True, slots=True)
class Examined:
    """Where each dependency is; None where a mistake in the settings is told already. No geocoder is None, too."""

    database: DatabaseSettings | None
    broker: BrokerSettings | None
    bucket: BucketSettings | None
    geocoder: GeocoderSettings | None
    has_geocoder: bool
    feeds: Feeds | None
    missing_seconds: float | None
    """From when on a process that gives no sign is missed."""


def examine(examined: Examined, *, poller_only: bool, without_broker: bool = False) -> list[Finding]:
    """Look at every dependency by itself; one that is away leaves the others readable, and is one line.

    `poller_only` says that the bucket is not meant to announce anything; `without_broker`, that nothing but `drain` is
    meant to run here.
    """
    postgres = _part("postgres", examined.database, partial(_postgres, examined.feeds))
    rabbitmq = _part("rabbitmq", examined.broker, _rabbitmq)
    findings = postgres + rabbitmq
    if _is_fine(rabbitmq, "rabbitmq"):
        findings += _part("management", examined.broker, partial(_management, _missing(rabbitmq)))
    if examined.feeds is not None:
        store = _part("store", examined.bucket, partial(_store, examined.feeds))
        findings += store
        if _is_fine(store, "store") and not without_broker:
            look = partial(_notifications, examined.feeds, poller_only=poller_only)
            findings += _part("notifications", examined.bucket, look)
    if _is_fine(postgres, "migrations") and examined.missing_seconds is not None and not without_broker:
        broker = examined.broker if _is_fine(rabbitmq, "rabbitmq") else None
        findings += _part("processes", examined.database, partial(at_work, broker, examined.missing_seconds))
    if not examined.has_geocoder and not without_broker:
        wait = "requests to find places wait in their queue until GEOCODER_API_KEY is set"
        findings.append(Finding.note("geocoder", "there is none", wait))
    return findings + _part("geocoder", examined.geocoder, _geocoder)


def end_to_end(
    examined: Examined, found: Sequence[Finding], patience: float, *, poller_only: bool
) -> tuple[list[Finding], list[Journey]]:
    """Send a canary for each feed, if what it needs was found to be there; wait for it for so many seconds."""
    if examined.database is None or examined.bucket is None or examined.feeds is None:
        return [], []
    if not (_is_fine(found, "migrations") and _is_fine(found, "objects")):
        return [Finding.note("canary", "not sent, for what is wrong above", "mend that, then ask again")], []
    journeys: list[Journey] = []

    def look(settings: DatabaseSettings) -> Iterator[Finding]:
        assert examined.bucket is not None and examined.feeds is not None  # noqa: S101, PT018 - looked at above
        bucket = Bucket(examined.bucket, examined.feeds.folders)
        broker = examined.broker if _is_fine(found, "rabbitmq") else None
        with database.connect(settings, Role.READ, purpose="doctor") as connection:
            journeys.extend(canary.send(connection, bucket, examined.feeds.served, patience, partial(hearing, broker)))
        yield from canary.findings(journeys, patience, poller_only=poller_only)

    return _part("canary", examined.database, look), journeys


def alerts_arrive(receiver: AlertReceiver) -> Finding:
    """Whether they do, which is found out by sending one."""
    try:
        receiver.tell(trial())
    except Refused as error:
        return Finding.wrong("alerts", str(error), "change that, then ask again")
    except FleetticketsError as error:
        return Finding.wrong("alerts", str(error), "see that it runs and can be reached from here")
    return Finding.ok("alerts", f"{receiver.host} has taken a test")


def _part(about: str, settings: LookedAt | None, look: Callable[[LookedAt], Iterator[Finding]]) -> list[Finding]:
    """What was found until the part could not be looked at any further, and why it could not."""
    findings: list[Finding] = []
    try:
        if settings is not None:
            findings.extend(look(settings))
    except Misconfigured as error:
        findings.append(Finding.wrong(about, str(error), "change that, then ask again"))
    except FleetticketsError as error:
        findings.append(Finding.wrong(about, str(error), "see that it runs and can be reached from here"))
    return findings


def _is_fine(findings: Iterable[Finding], about: str) -> bool:
    """It was found well, and nothing wrong after that: who answers can fall silent at the next question."""
    levels = {finding.level for finding in findings if finding.about == about}
    return Level.OK in levels and Level.WRONG not in levels


def _postgres(feeds: Feeds | None, settings: DatabaseSettings) -> Iterator[Finding]:
    with database.connect(settings, Role.READ) as connection, database.translated_errors():
        server = database.row(connection, "doctor", "server") or {}
        if server["number"] < _OLDEST_POSTGRES:
            yield Finding.wrong("postgres", f"version {server['version']}", "upgrade to 14 or newer")
        elif server["is_standby"]:
            yield Finding.wrong("postgres", "a standby, which cannot be written to", "name the primary")
        else:
            yield Finding.ok("postgres", f"version {server['version']}")
        steps, ahead = migrate.status(connection), migrate.ahead(connection)
        pending = [step.name for step in steps if step.how is None]
        edited = [step.name for step in steps if step.edited and step.how == "run"]
        if server["postgis"] or not (pending and server["postgis_to_be_had"]):  # else migrating brings it
            yield _postgis(server["postgis"], server["postgis_to_be_had"])
        if ahead:
            yield Finding.wrong("migrations", f"ahead of this program: {', '.join(ahead)}", migrate.BACK)
        elif pending:
            more = f" and {len(pending) - _NAMED} more" if len(pending) > _NAMED else ""
            named = f"{', '.join(pending[:_NAMED])}{more}"
            yield Finding.wrong("migrations", f"pending: {named}", "run: fleettickets migrate")
        elif edited:
            yield Finding.wrong("migrations", f"edited since: {', '.join(edited)}", "undo that, add a new file")
        else:
            yield Finding.ok("migrations", f"current, {len(steps)} of {len(steps)}")
            if feeds is not None:
                feed_tables.require(connection, feeds.served)
    if not pending and not ahead:
        rights = _rights(settings)
        yield rights
        yield from _other_roles(settings)
        if rights.level is not Level.WRONG and feeds is not None:
            yield _merge(feeds, settings)


def _rights(settings: DatabaseSettings) -> Finding:
    """What a consumer with this DATABASE_URL may do."""
    with database.connect(settings, Role.INGEST) as connection, database.translated_errors():
        found = database.row(connection, "doctor", "rights", {"role": Role.INGEST}) or {}
        hidden = database.row(connection, "roles", "filtered") or {}
    user, role = found["user"], found["role"]
    if found["missing"]:
        do = f"GRANT {role} to the login; if it is a member: fleettickets migrate, which gives the role its rights"
        return Finding.wrong("rights", f"{user} lacks {', '.join(found['missing'])}", do)
    if hidden["tables"]:
        do = f"ALTER ROLE {user} BYPASSRLS, or DISABLE ROW LEVEL SECURITY on them"
        return Finding.wrong("rights", f"policies hide rows of {', '.join(hidden['tables'])} from {user}", do)
    if user != role:
        do = f"GRANT {role} to it, for commands that can do no more than they need; docs/security.md"
        return Finding.note("rights", f"the commands act with all rights of the login {user}", do)
    return Finding.ok("rights", f"the consumer acts as {user}")


def _other_roles(settings: DatabaseSettings) -> Iterator[Finding]:
    with database.connect(settings, Role.READ) as connection, database.translated_errors():
        others = database.rows(connection, "roles", "others")
    for other in others:
        logins = ", ".join(other["logins"])
        told = f"not of this database alone, and has rights in it; members: {logins or 'none'}"
        do = "run: fleettickets migrate"
        if other["has_own"] and logins:
            do = f"GRANT {other['own']} TO {logins}; REVOKE {other['name']} FROM {logins}; then {do}"
        elif other["has_own"]:
            do = f"restart what has been running since before the upgrade; then {do}"
        yield Finding.note(f"role {other['name']}", told, do)


def _merge(feeds: Feeds, settings: DatabaseSettings) -> Finding:
    try:
        with database.open_pool(settings, 1, "doctor") as pool:
            names = (uuid.uuid4().hex for _ in feeds)
            named = zip(feeds, names, strict=True)
            is_whole = all(rehearse(pool, feed, name, rehearsed_file(feed, name)) for feed, name in named)
    except HeldByAnother as error:
        do = "nothing, if a dry run or a large file is in hand: ask again after it"
        return Finding.note("merge", f"not tried to its end: {error.detail}", do)
    except (DependencyDown, Permanent, Refused) as error:
        match error.__cause__:
            case errors.InsufficientPrivilege():
                do = "fleettickets migrate gives the roles their rights; somebody else's trigger needs its own"
            case errors.DiskFull() | errors.OutOfMemory():
                do = "make room on the database's server"
            case _:
                do = "nothing can be applied until that is mended; it is the server's own word"
        return Finding.wrong("merge", f"a file of two rows cannot be applied: {error.detail}", do)
    if not is_whole:
        do = "look for triggers and rules on the tables of tickets and ingest"
        return Finding.wrong("merge", "a file of two rows was applied, and its rows were not there", do)
    return Finding.ok("merge", "a file of two rows, applied as the consumer does it and rolled back")


def _postgis(installed: str | None, to_be_had: str | None) -> Finding:
    if installed:
        return Finding.ok("postgis", f"version {installed}")
    if to_be_had:
        return Finding.wrong("postgis", f"not in this database; {to_be_had} is to be had", "CREATE EXTENSION postgis")
    return Finding.wrong("postgis", "not on this server", "install its package there, then CREATE EXTENSION postgis")


def _rabbitmq(settings: BrokerSettings) -> Iterator[Finding]:
    with (
        channels.confirming_channel(settings, "doctor", channels.LOOKING_HEARTBEAT) as channel,
        channels.translated_errors(),
    ):
        version = channels.server_version(channel)
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if number and number < _OLDEST_RABBITMQ:
            yield Finding.wrong("rabbitmq", version, "upgrade to 3.10 or newer")
        else:
            yield Finding.ok("rabbitmq", version)
        outcome = topology.compare(channel)
    missing = [difference for difference in outcome.differences if difference.what == topology.MISSING]
    if missing:
        yield Finding.wrong(
            _TOPOLOGY, f"{_MISSING}{', '.join(dict.fromkeys(one.name for one in missing))}", missing[0].do
        )
    for difference in outcome.differences:
        if difference.what != topology.MISSING:
            yield Finding.wrong(f"{difference.kind} {difference.name}", difference.what, difference.do)
    if not outcome.differences:
        agreed = f"{len(outcome.agreed)} exchanges and quorum queues, arguments as declared"
        yield Finding.ok(_TOPOLOGY, agreed)


def _missing(findings: Iterable[Finding]) -> set[str]:
    """The exchanges and queues that are told as missing."""
    told = [one.found.removeprefix(_MISSING) for one in findings if one.about == _TOPOLOGY]
    return {name for names in told for name in names.split(", ")}


def _management(missing: Container[str], settings: BrokerSettings) -> Iterator[Finding]:
    if settings.management_url is None:
        yield Finding.note("bindings", "not looked at", "set RABBITMQ_MANAGEMENT_URL to have them compared")
        return
    # What is bound to something missing is missing with it.
    wanted = [one for one in topology.bindings() if one.exchange not in missing and one.queue not in missing]
    unbound = management.unbound(settings, wanted)
    for difference in unbound:
        yield Finding.wrong(f"binding {difference.name}", difference.what, difference.do)
    if not unbound and not missing:
        yield Finding.ok("bindings", "all in force")
    for difference in management.overridden(settings):
        yield Finding.wrong(f"{difference.kind} {difference.name}", difference.what, difference.do)
    for difference in management.surplus(settings, topology.bindings()):
        yield Finding.note(f"{difference.kind} {difference.name}", difference.what, difference.do)
    yield _steering(settings)


def _steering(settings: BrokerSettings) -> Finding:
    """Who may do more than announce files."""
    about, exchange = "broker rights", f"exchange {topology.REQUESTS}"
    try:
        users = [user for user in management.steering(settings) if user != broker_users.CONSUMER.name]
    except Misconfigured:
        return Finding.note(about, "not looked at", "only an administrator of RabbitMQ can be told")
    if users:
        found = f"may write to {exchange}, as only consumers need to: {', '.join(users)}"
        return Finding.note(about, found, "give who brings events fleettickets.events alone; docs/security.md")
    return Finding.ok(about, f"nobody else may write to {exchange}")


def _store(feeds: Feeds, settings: BucketSettings) -> Iterator[Finding]:
    bucket = Bucket(settings, feeds.folders)
    bucket.require()
    yield Finding.ok("store", f"bucket {settings.bucket} can be listed")
    yield from _folders(feeds, bucket)
    try:
        keeps, *_ = [try_conditions(settings, folder) for folder in feeds.folders]
    except Refused as error:
        do = f"grant the access key read, write and delete below {', '.join(feed.prefix for feed in feeds)}"
        yield Finding.wrong("objects", str(error), do)
        return
    yield Finding.ok("objects", "can be written, copied and deleted")
    for what, is_kept in (("copy", keeps.copy), ("delete", keeps.delete)):
        if is_kept:
            yield Finding.ok(f"conditional {what}", "supported")
        else:
            do = "nothing, if the exporter never writes a key twice within milliseconds; see docs/architecture.md"
            yield Finding.note(f"conditional {what}", "ignored by this store", do)


def _folders(feeds: Feeds, bucket: Bucket) -> Iterator[Finding]:
    """Feeds under whose prefix nothing was ever stored, while the bucket has something elsewhere."""
    empty = [feed.folder for feed in feeds if bucket.is_empty(feed.folder)]
    if not empty:
        return
    named = ", ".join(folder.prefix or "its root" for folder in empty)
    try:
        others = bucket.other_changes(feed.folder for feed in feeds.declared)
    except (Refused, DependencyDown):  # a right to list no more than it needs
        others = []
    elsewhere = f"while {', '.join(others)} has something"
    if len(empty) == len(feeds.served):
        if others:
            do = "see where the exporter writes: a feed's prefix stands in its declaration, docs/feeds.md"
            yield Finding.wrong("prefix", f"the bucket has nothing below {named}, {elsewhere}", do)
        return
    do = "nothing, if its exporter has not begun; else see where it writes, or serve others: FLEETTICKETS_FEEDS"
    full = ", ".join(feed.prefix or "its root" for feed in feeds if feed.folder not in empty)
    told = elsewhere if others else f"while {full} has something"
    yield Finding.note("prefix", f"the bucket has nothing below {named}, {told}", do)


def _notifications(feeds: Feeds, settings: BucketSettings, *, poller_only: bool) -> Iterator[Finding]:
    try:
        configuration = Notifications(settings, feeds.folders).read()
    except Refused as error:
        do = "look in the store's own settings; the poller alone does as well"
        yield Finding.note("notifications", f"cannot be asked: {error}", do)
        return
    yield _announced(configuration, feeds, poller_only=poller_only)
    for folder in feeds.folders:
        if superfluous := notifications.announcing(configuration, folder.processed):
            do = f"filter on the prefix {folder.changes}: every archived file is announced for nothing"
            yield Finding.wrong("archive", f"announced too, to {', '.join(superfluous)}", do)


def _announced(configuration: dict[str, Any], feeds: Feeds, *, poller_only: bool) -> Finding:
    about = "notifications"
    told: list[str] = []
    lacking: list[str] = []
    for folder in feeds.folders:
        targets = notifications.announcing(configuration, folder.changes)
        if targets:
            told.append(f"of {folder.changes} to {', '.join(targets)}")
        else:
            lacking.append(folder.changes)
    if not lacking:
        return Finding.ok(about, "; ".join(told))
    found = f"none of {', '.join(lacking)}"
    if poller_only:
        return Finding.note(about, f"{found}, as was said", "keep a poller running")
    do = (
        "fleettickets notifications --apply, with --store ceph, --store rustfs or --arn ARN: docs/notifications.md; "
        "if that is meant: doctor --poller-only"
    )
    return Finding.wrong(about, found, do)


def _geocoder(settings: GeocoderSettings) -> Iterator[Finding]:
    left = Geocoder(settings).balance()
    told = "" if left is None else f": {left} requests left today"
    yield Finding.ok("geocoder", f"{settings.url.host} takes the key{told}")
