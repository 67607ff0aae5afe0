"""Each dependency: its version, what it can do, and what to do if it cannot. Changes nothing that anybody else sees."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from psycopg import errors

from consumer.geocoding.locationiq import Geocoder
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings, GeocoderChoice, GeocoderSettings
from consumer.upkeep.rehearsal import rehearse
from publisher.broker import broker_users, channels, management, topology
from publisher.errors import DependencyDown, FleetticketsError, HeldByAnother, Misconfigured, Permanent, Refused
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store import notifications
from publisher.store.bucket import Bucket
from publisher.store.conditions import try_conditions
from publisher.store.notifications import Notifications

_OLDEST_POSTGRES = 140000
_OLDEST_RABBITMQ = (3, 10)


class Level(StrEnum):
    """How a finding counts: only what is wrong makes the whole unfit."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do unless it is fine."""

    about: str
    level: Level
    found: str
    do: str = ""


def examine(*, poller_only: bool) -> list[Finding]:
    """Look at every dependency by itself; one that is away leaves the others readable.

    `poller_only` says that the bucket is not meant to announce anything.
    """
    findings: list[Finding] = []
    parts: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("postgres", _postgres),
        ("rabbitmq", _rabbitmq),
        ("store", _store),
        ("notifications", lambda: _notifications(poller_only=poller_only)),
        ("geocoder", _geocoder),
    )
    for about, part in parts:
        try:
            findings.extend(part())
        except Misconfigured as error:
            findings.append(Finding(about, Level.WRONG, str(error), "set it in the environment or in .env"))
        except FleetticketsError as error:
            findings.append(Finding(about, Level.WRONG, str(error), "see that it runs and can be reached from here"))
    return findings


def _postgres() -> Iterator[Finding]:
    with database.connect(load(DatabaseSettings), Role.READ) as connection, database.translated_errors():
        server = database.row(connection, "doctor", "server") or {}
        if server["number"] < _OLDEST_POSTGRES:
            yield Finding("postgres", Level.WRONG, f"version {server['version']}", "upgrade to 14 or newer")
        elif server["is_standby"]:
            yield Finding("postgres", Level.WRONG, "a standby, which cannot be written to", "name the primary")
        else:
            yield Finding("postgres", Level.OK, f"version {server['version']}")
        yield _postgis(server["postgis"], server["postgis_to_be_had"])
        steps = migrate.status(connection)
        pending = [step.name for step in steps if step.how is None]
        edited = [step.name for step in steps if step.edited and step.how == "run"]
        if pending:
            yield Finding("migrations", Level.WRONG, f"pending: {', '.join(pending)}", "run: fleettickets migrate")
        elif edited:
            yield Finding("migrations", Level.WRONG, f"edited since: {', '.join(edited)}", "undo that, add a new file")
        else:
            yield Finding("migrations", Level.OK, f"current, {len(steps)} of {len(steps)}")
    if not pending:
        rights = _rights()
        yield rights
        yield from _other_roles()
        if rights.level is not Level.WRONG:
            yield _merge()


def _rights() -> Finding:
    """What a consumer with this DATABASE_URL may do."""
    with database.connect(load(DatabaseSettings), Role.INGEST) as connection, database.translated_errors():
        found = database.row(connection, "doctor", "rights", {"role": Role.INGEST}) or {}
        hidden = database.row(connection, "roles", "filtered") or {}
    user, role = found["user"], found["role"]
    if found["missing"]:
        do = f"GRANT {role} to the login; if it is a member: fleettickets migrate, which gives the role its rights"
        return Finding("rights", Level.WRONG, f"{user} lacks {', '.join(found['missing'])}", do)
    if hidden["tables"]:
        do = f"ALTER ROLE {user} BYPASSRLS, or DISABLE ROW LEVEL SECURITY on them"
        return Finding("rights", Level.WRONG, f"policies hide rows of {', '.join(hidden['tables'])} from {user}", do)
    if user != role:
        do = f"GRANT {role} to it, for commands that can do no more than they need; docs/security.md"
        return Finding("rights", Level.NOTE, f"the commands act with all rights of the login {user}", do)
    return Finding("rights", Level.OK, f"the consumer acts as {user}")


def _other_roles() -> Iterator[Finding]:
    with database.connect(load(DatabaseSettings), Role.READ) as connection, database.translated_errors():
        others = database.rows(connection, "roles", "others")
    for other in others:
        logins = ", ".join(other["logins"])
        told = f"not of this database alone, and has rights in it; members: {logins or 'none'}"
        do = "run: fleettickets migrate"
        if other["has_own"] and logins:
            do = f"GRANT {other['own']} TO {logins}; REVOKE {other['name']} FROM {logins}; then {do}"
        elif other["has_own"]:
            do = f"restart what has been running since before the upgrade; then {do}"
        yield Finding(f"role {other['name']}", Level.NOTE, told, do)


def _merge() -> Finding:
    try:
        is_whole = rehearse(load(DatabaseSettings))
    except HeldByAnother as error:
        do = "nothing, if a dry run or a large file is in hand: ask again after it"
        return Finding("merge", Level.NOTE, f"not tried to its end: {error.detail}", do)
    except (DependencyDown, Permanent, Refused) as error:
        match error.__cause__:
            case errors.InsufficientPrivilege():
                do = "fleettickets migrate gives the roles their rights; somebody else's trigger needs its own"
            case errors.DiskFull() | errors.OutOfMemory():
                do = "make room on the database's server"
            case _:
                do = "nothing can be applied until that is mended; it is the server's own word"
        return Finding("merge", Level.WRONG, f"a file of two rows cannot be applied: {error.detail}", do)
    if not is_whole:
        do = "look for triggers and rules on tickets.inc, tickets.closure_events and the tables of ingest"
        return Finding("merge", Level.WRONG, "a file of two rows was applied, and its rows were not there", do)
    return Finding("merge", Level.OK, "a file of two rows, applied as the consumer does it and rolled back")


def _postgis(installed: str | None, to_be_had: str | None) -> Finding:
    if installed:
        return Finding("postgis", Level.OK, f"version {installed}")
    if to_be_had:
        return Finding(
            "postgis", Level.WRONG, f"not in this database; {to_be_had} is to be had", "CREATE EXTENSION postgis"
        )
    return Finding(
        "postgis", Level.WRONG, "not on this server", "install its package there, then CREATE EXTENSION postgis"
    )


def _rabbitmq() -> Iterator[Finding]:
    settings = load(BrokerSettings)
    with (
        channels.confirming_channel(settings, "doctor", channels.LOOKING_HEARTBEAT) as channel,
        channels.translated_errors(),
    ):
        version = channels.server_version(channel)
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if number and number < _OLDEST_RABBITMQ:
            yield Finding("rabbitmq", Level.WRONG, version, "upgrade to 3.10 or newer")
        else:
            yield Finding("rabbitmq", Level.OK, version)
        outcome = topology.compare(channel)
    for difference in outcome.differences:
        yield Finding(f"{difference.kind} {difference.name}", Level.WRONG, difference.what, difference.do)
    if not outcome.differences:
        agreed = f"{len(outcome.agreed)} exchanges and quorum queues, arguments as declared"
        yield Finding("topology", Level.OK, agreed)
    if settings.management_url is None:
        yield Finding("bindings", Level.NOTE, "not looked at", "set RABBITMQ_MANAGEMENT_URL to have them compared")
        return
    unbound = management.unbound(settings, topology.bindings())
    for difference in unbound:
        yield Finding(f"binding {difference.name}", Level.WRONG, difference.what, difference.do)
    if not unbound:
        yield Finding("bindings", Level.OK, "all in force")
    for difference in management.overridden(settings):
        yield Finding(f"{difference.kind} {difference.name}", Level.WRONG, difference.what, difference.do)
    for difference in management.surplus(settings, topology.bindings()):
        yield Finding(f"{difference.kind} {difference.name}", Level.NOTE, difference.what, difference.do)
    yield _steering(settings)


def _steering(settings: BrokerSettings) -> Finding:
    """Who may do more than announce files."""
    about, exchange = "broker rights", f"exchange {topology.REQUESTS}"
    try:
        users = [user for user in management.steering(settings) if user != broker_users.CONSUMER.name]
    except Misconfigured:
        return Finding(about, Level.NOTE, "not looked at", "only an administrator of RabbitMQ can be told")
    if users:
        found = f"may write to {exchange}, as only consumers need to: {', '.join(users)}"
        return Finding(about, Level.NOTE, found, "give who brings events fleettickets.events alone; docs/security.md")
    return Finding(about, Level.OK, f"nobody else may write to {exchange}")


def _store() -> Iterator[Finding]:
    settings = load(BucketSettings)
    Bucket(settings).require()
    yield Finding("store", Level.OK, f"bucket {settings.bucket} can be listed")
    try:
        keeps = try_conditions(settings)
    except Refused as error:
        do = f"grant the access key read, write and delete below {settings.prefix}"
        yield Finding("objects", Level.WRONG, str(error), do)
        return
    yield Finding("objects", Level.OK, "can be written, copied and deleted")
    for what, is_kept in (("copy", keeps.copy), ("delete", keeps.delete)):
        if is_kept:
            yield Finding(f"conditional {what}", Level.OK, "supported")
        else:
            do = "nothing, if the exporter never writes a key twice within milliseconds; see docs/architecture.md"
            yield Finding(f"conditional {what}", Level.NOTE, "ignored by this store", do)


def _notifications(*, poller_only: bool) -> Iterator[Finding]:
    settings = load(BucketSettings)
    try:
        configuration = Notifications(settings).read()
    except Refused as error:
        do = "look in the store's own settings; the poller alone does as well"
        yield Finding("notifications", Level.NOTE, f"cannot be asked: {error}", do)
        return
    targets = notifications.announcing(configuration, settings.changes_prefix)
    if targets:
        yield Finding("notifications", Level.OK, f"of {settings.changes_prefix} to {', '.join(targets)}")
    elif poller_only:
        yield Finding("notifications", Level.NOTE, "none, as was said", "keep a poller running")
    else:
        do = "fleettickets notifications --apply, see docs/notifications.md; if that is meant: doctor --poller-only"
        yield Finding("notifications", Level.WRONG, f"none of {settings.changes_prefix}", do)
    if superfluous := notifications.announcing(configuration, settings.processed_prefix):
        do = f"filter on the prefix {settings.changes_prefix}: every archived file is announced for nothing"
        yield Finding("archive", Level.WRONG, f"announced too, to {', '.join(superfluous)}", do)


def _geocoder() -> Iterator[Finding]:
    if not load(GeocoderChoice).is_made:
        wait = "requests to find places wait in their queue until GEOCODER_API_KEY is set"
        yield Finding("geocoder", Level.NOTE, "there is none", wait)
        return
    settings = load(GeocoderSettings)
    left = Geocoder(settings).balance()
    told = "" if left is None else f": {left} requests left today"
    yield Finding("geocoder", Level.OK, f"{settings.url.host} takes the key{told}")
