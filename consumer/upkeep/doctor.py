"""Each dependency: its version, what it can do, and what to do if it cannot. Changes nothing that anybody else sees."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Self, TypeVar

from psycopg import errors
from pydantic import Field

from consumer.feeds.feed import Feeds
from consumer.geocoding.locationiq import Geocoder
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings, GeocoderSettings
from consumer.upkeep.rehearsal import rehearse
from consumer.upkeep.views import View
from publisher.broker import broker_users, channels, management, topology
from publisher.errors import DependencyDown, FleetticketsError, HeldByAnother, Misconfigured, Permanent, Refused
from publisher.settings import BrokerSettings, BucketSettings
from publisher.store import notifications
from publisher.store.bucket import Bucket
from publisher.store.conditions import try_conditions
from publisher.store.notifications import Notifications

_OLDEST_POSTGRES = 140000
_OLDEST_RABBITMQ = (3, 10)

LookedAt = TypeVar("LookedAt")


class Level(StrEnum):
    """How a finding counts: only what is wrong makes the whole unfit."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


class Finding(View):
    """One line: what was looked at, what was found, and what to do unless it is fine."""

    about: str = Field(description="The dependency, or the part of it, that was looked at.")
    level: Level
    found: str = Field(description="A version, a state, or what is wrong, for a person.")
    do: str = Field("", description="What to do; empty where all is fine.")

    @classmethod
    def ok(cls, about: str, found: str) -> Self:
        return cls(about=about, level=Level.OK, found=found)

    @classmethod
    def note(cls, about: str, found: str, do: str) -> Self:
        return cls(about=about, level=Level.NOTE, found=found, do=do)

    @classmethod
    def wrong(cls, about: str, found: str, do: str) -> Self:
        return cls(about=about, level=Level.WRONG, found=found, do=do)


class Examination(View):
    """What was found of every dependency."""

    findings: list[Finding] = Field(description="In the order looked at: database, broker, store, geocoder.")

    @property
    def is_fit(self) -> bool:
        """Whether nothing is wrong; notes are no harm."""
        return all(finding.level is not Level.WRONG for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Examined:
    """Where each dependency is, or the mistake in its settings, which is a finding too; no geocoder is None."""

    database: DatabaseSettings | Misconfigured
    broker: BrokerSettings | Misconfigured
    bucket: BucketSettings | Misconfigured
    geocoder: GeocoderSettings | Misconfigured | None
    feeds: Feeds


def examine(examined: Examined, *, poller_only: bool) -> Examination:
    """Look at every dependency by itself; one that is away leaves the others readable.

    `poller_only` says that the bucket is not meant to announce anything.
    """
    return Examination(
        findings=[
            *_part("postgres", examined.database, partial(_postgres, examined.feeds)),
            *_part("rabbitmq", examined.broker, _rabbitmq),
            *_part("store", examined.bucket, partial(_store, examined.feeds)),
            *_part("notifications", examined.bucket, partial(_notifications, examined.feeds, poller_only=poller_only)),
            *_part("geocoder", examined.geocoder, _geocoder),
        ]
    )


def _part(
    about: str, settings: LookedAt | Misconfigured, look: Callable[[LookedAt], Iterator[Finding]]
) -> list[Finding]:
    """What was found until the part could not be looked at any further, and why it could not."""
    findings: list[Finding] = []
    try:
        if isinstance(settings, Misconfigured):
            raise settings
        findings.extend(look(settings))
    except Misconfigured as error:
        findings.append(Finding.wrong(about, str(error), "set it in the environment or in .env"))
    except FleetticketsError as error:
        findings.append(Finding.wrong(about, str(error), "see that it runs and can be reached from here"))
    return findings


def _postgres(feeds: Feeds, settings: DatabaseSettings) -> Iterator[Finding]:
    with database.connect(settings, Role.READ) as connection, database.translated_errors():
        server = database.row(connection, "doctor", "server") or {}
        if server["number"] < _OLDEST_POSTGRES:
            yield Finding.wrong("postgres", f"version {server['version']}", "upgrade to 14 or newer")
        elif server["is_standby"]:
            yield Finding.wrong("postgres", "a standby, which cannot be written to", "name the primary")
        else:
            yield Finding.ok("postgres", f"version {server['version']}")
        yield _postgis(server["postgis"], server["postgis_to_be_had"])
        steps, ahead = migrate.status(connection), migrate.ahead(connection)
        pending = [step.name for step in steps if step.how is None]
        edited = [step.name for step in steps if step.edited and step.how == "run"]
        if ahead:
            yield Finding.wrong("migrations", f"ahead of this program: {', '.join(ahead)}", migrate.BACK)
        elif pending:
            yield Finding.wrong("migrations", f"pending: {', '.join(pending)}", "run: fleettickets migrate")
        elif edited:
            yield Finding.wrong("migrations", f"edited since: {', '.join(edited)}", "undo that, add a new file")
        else:
            yield Finding.ok("migrations", f"current, {len(steps)} of {len(steps)}")
            feed_tables.require(connection, feeds.served)
    if not pending and not ahead:
        rights = _rights(settings)
        yield rights
        yield from _other_roles(settings)
        if rights.level is not Level.WRONG:
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
            is_whole = all(rehearse(pool, feed) for feed in feeds)
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
    for difference in outcome.differences:
        yield Finding.wrong(f"{difference.kind} {difference.name}", difference.what, difference.do)
    if not outcome.differences:
        agreed = f"{len(outcome.agreed)} exchanges and quorum queues, arguments as declared"
        yield Finding.ok("topology", agreed)
    if settings.management_url is None:
        yield Finding.note("bindings", "not looked at", "set RABBITMQ_MANAGEMENT_URL to have them compared")
        return
    unbound = management.unbound(settings, topology.bindings())
    for difference in unbound:
        yield Finding.wrong(f"binding {difference.name}", difference.what, difference.do)
    if not unbound:
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
    Bucket(settings, feeds.folders).require()
    yield Finding.ok("store", f"bucket {settings.bucket} can be listed")
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
    do = "fleettickets notifications --apply, see docs/notifications.md; if that is meant: doctor --poller-only"
    return Finding.wrong(about, found, do)


def _geocoder(settings: GeocoderSettings | None) -> Iterator[Finding]:
    if settings is None:
        wait = "requests to find places wait in their queue until GEOCODER_API_KEY is set"
        yield Finding.note("geocoder", "there is none", wait)
        return
    left = Geocoder(settings).balance()
    told = "" if left is None else f": {left} requests left today"
    yield Finding.ok("geocoder", f"{settings.url.host} takes the key{told}")
