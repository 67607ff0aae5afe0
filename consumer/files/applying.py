"""The exactly-once rule: everything that files mean, in one transaction, or nothing of it.

Order matters: claim the versions, stage the rows, merge, closures, rejects, ledger, follow-on requests, checks that
were put off, and the watermark last, which every file takes and so must hold for the shortest time.

Of several files each step is taken for all of them, and counted as if the newest had come first: what an older one says
of a ticket that a newer one has as well is stale, and a content that the ticket had. Their tickets are locked in one
order, as those of a single file are.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from psycopg import Copy

from consumer.fail_points import Reached
from consumer.feeds.feed import Feed, FollowOn
from consumer.files import ledger, tellings
from consumer.files.cleaning import Dropped, RowReject, TicketRow
from consumer.files.decoding import Read
from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from consumer.files.rows import Rows
from consumer.files.versions import Asked, Counts, LedgerFile, Sighting
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.postgres.queries import statements
from consumer.settings import ApplySettings
from publisher.errors import Permanent

FROM_THE_FUTURE = "from the future"
"""The reason of a file whose name is later than all clocks. One of the year 9999 would outrank every other for ever."""
_AHEAD = timedelta(days=1)
"""The exporter's clock may be ahead by this much."""

_PASSED_OVER = "a changed file, passed over by policy"


class Watch:
    """Looks on while a file is applied; this one at nothing.

    What it sees is inside the file's transaction, before the locks that every file takes.
    """

    def staged(self, connection: Connection, sighting: Sighting, file_id: int) -> None:
        """The rows are staged, and none of them merged."""

    def merged(self, connection: Connection, sighting: Sighting, file_id: int) -> None:
        """They are merged, and staged still."""


UNWATCHED = Watch()


def takes_changed_back(settings: ApplySettings, asked: Asked) -> bool:
    """Whether bytes are taken up that are others under a known key, or are back there."""
    return settings.changed_policy != "ignore" or asked is Asked.BY_A_PERSON


@dataclass(frozen=True, slots=True)
class ToApply:
    """A version to apply. `read` gives up to so many bytes of it at a time, which began to come at `opened_at`.

    Under quarantine a person releases the version with the ETag `released`, or whichever there is when that is None;
    and lets that one lack columns which its exporter always writes, if it `may_lack_columns`. `watch` is shown what
    applying it does.
    """

    sighting: Sighting
    read: Read
    settings: ApplySettings
    asked: Asked
    released: str | None = None
    may_lack_columns: bool = False
    watch: Watch = UNWATCHED
    opened_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A version that is this transaction's, and its rows."""

    version: ToApply
    claim: ledger.Claim
    rows: Rows

    @property
    def rank(self) -> tuple[object, ...]:
        """As the positions of their rows are in order: a later one outranks the others."""
        sighting = self.version.sighting
        return self.claim.epoch, sighting.key.time, sighting.key.key, self.claim.object_time, sighting.etag


@dataclass(slots=True)
class _Staged:
    """How many rows of a file were read, and how many of them rejected, dropped, or of a ticket that is closed."""

    read: int = 0
    rejected: int = 0
    alarms: int = 0
    sentinels: int = 0
    closed: int = 0

    @property
    def tickets(self) -> int:
        """Rows that say something of one."""
        return self.read - self.rejected - self.alarms - self.sentinels


def apply_files(
    connection: Connection, versions: Sequence[ToApply], reached: Reached
) -> list[Applied | AlreadyApplied | Duplicate]:
    """Apply versions inside the caller's transaction, which holds their keys' locks, and keeps or undoes all of it.

    Several are of one feed, with different keys, and asked for in the same way, which the first one tells.
    `reached` is told each point that a crash could come at.
    Raises: Permanent, DependencyDown, psycopg.Error.
    """
    reached("before claim")
    first = versions[0]
    asked = _asked(first)
    takes_back = takes_changed_back(first.settings, asked) and not first.sighting.is_archived
    claims = ledger.claim(connection, [each.sighting for each in versions], asked, takes_back=takes_back)
    there = [each.sighting for each in versions if each.sighting.key.key in claims or not each.sighting.is_archived]
    replaced = [ledger.replaced(there)] if there else []
    decided: dict[int, Applied | AlreadyApplied | Duplicate] = {}
    claimed: dict[int, _Claimed] = {}
    for place, version in enumerate(versions):
        claim = claims.get(version.sighting.key.key)
        if claim is None:
            decided[place] = _claimed_before(connection, version.sighting, takes_back=takes_back)
        elif claim.decision == "changed" and version.settings.changed_policy == "ignore":
            ledger.record_passed_over(connection, claim.file_id, _PASSED_OVER)
            decided[place] = Duplicate(version.sighting.key.key, _PASSED_OVER)
        else:
            claimed[place] = _Claimed(version, claim, _rows(version, claim, asked))
    if claimed:
        reached("after claim")
        in_order = sorted(claimed, key=lambda place: claimed[place].rank)
        applied = _apply(connection, [claimed[place] for place in in_order], replaced, reached)
        decided |= dict(zip(in_order, applied, strict=True))
        reached("before commit")
    else:
        database.rows_of_each(connection, replaced)
    return [decided[place] for place in range(len(versions))]


def _asked(version: ToApply) -> Asked:
    quarantined = version.settings.changed_policy == "quarantine"
    if quarantined and version.released not in (None, version.sighting.etag):
        return Asked.BY_ITS_RETRY  # of these bytes nobody has seen a letter
    return version.asked


def _rows(version: ToApply, claim: ledger.Claim, asked: Asked) -> Rows:
    """Raises: Permanent, for a version that is not to be applied."""
    sighting, settings = version.sighting, version.settings
    if claim.decision == "changed" and settings.changed_policy == "quarantine" and asked is not Asked.BY_A_PERSON:
        raise Permanent("changed", "the key was applied before with other bytes; replay it to apply these")
    if sighting.key.time > (now := _latest(sighting, claim.now)) + _AHEAD:
        raise Permanent(
            FROM_THE_FUTURE,
            f"its name says {sighting.key.time:%Y-%m-%d %H:%M} UTC, and by the latest clock of consumer, database and "
            f"store it is {now:%Y-%m-%d %H:%M}; when it is due, replay its dead letter, or drain",
        )
    is_let_off = version.may_lack_columns and version.released in (None, "", sighting.etag)
    # What is archived was applied once, so somebody has let it off.
    allows_missing = is_let_off or sighting.is_archived or settings.missing_columns == "allow"
    max_reject_share = settings.max_reject_share
    return Rows(version.read, sighting.feed, max_reject_share=max_reject_share, allows_missing=allows_missing)


def _apply(
    connection: Connection, files: Sequence[_Claimed], also: Sequence[database.Statement], reached: Reached
) -> list[Applied]:
    """Apply what is claimed, the newest last. `also` goes along when it comes to the database."""
    feed = files[0].version.sighting.feed
    staged = _stage(connection, files, reached)
    staged_at = datetime.now(UTC)
    counts = _merge(connection, feed, files, staged)
    notes = _notes(connection, feed, files)
    done = {
        file.claim.file_id: ledger.Done(
            file.rows.sha256, file.version.opened_at, staged_at, count, file.rows.lines, noted
        )
        for file, count, noted in zip(files, counts, notes, strict=True)
    }
    found, *_ = database.rows_of_each(
        connection,
        [
            ledger.applied(done),
            *_follow_ons_asked(feed, done),
            database.Statement("merge", "fire_deferred"),
            *also,
            _watermark(files, sum(count.inserted for count in counts)),
        ],
    )
    applied_at = {row["file_id"]: row["applied_at"] for row in found}
    return [
        _applied(file, applied_at[file.claim.file_id], staged_at, count, noted)
        for file, count, noted in zip(files, counts, notes, strict=True)
    ]


def _applied(
    file: _Claimed, applied_at: datetime, staged_at: datetime, counts: Counts, notes: Mapping[str, Any]
) -> Applied:
    version, claim = file.version, file.claim
    known = LedgerFile(claim.file_id, version.sighting.put, file.rows.sha256, "applied", applied_at)
    opened_at = version.opened_at
    return Applied(
        known, claim.decision, counts, notes, version.sighting, opened_at, staged_at,
        committed_at=staged_at, rejects=dict(file.rows.rules),
    )  # fmt: skip


def _merge(connection: Connection, feed: Feed, files: Sequence[_Claimed], staged: Sequence[_Staged]) -> list[Counts]:
    """Have the staged rows take effect; gives what became of those of each file."""
    for file in files:
        file.version.watch.staged(connection, file.version.sighting, file.claim.file_id)
    file_ids = [file.claim.file_id for file in files]
    told = tellings.tell(connection, feed, file_ids, is_kept=files[0].version.settings.keep_versions_days > 0)
    keeps_closures = FollowOn.HISTORY in feed.follow_ons
    given = {"file_ids": file_ids, "closures": "recorded" if keeps_closures else "", "tellings": told}
    names = ["move_positions", *(["move_on"] if len(files) > 1 else []), "write_tickets"]
    if keeps_closures and any(each.closed for each in staged):
        names.append("merge_closures")
    if any(each.rejected for each in staged):
        names.append("keep_rejects")
    found = database.rows_of_each(connection, [database.Statement("merge", name, given, feed) for name in names])
    of_each: dict[int, Counter[str]] = defaultdict(Counter)
    for row in chain.from_iterable(found):
        of_each[row.pop("place")].update(row)
    if told and sum(each.tickets for each in staged) > sum(each["in_order"] for each in of_each.values()):
        tellings.put_late(connection, feed, told)
    for file in files:
        file.version.watch.merged(connection, file.version.sighting, file.claim.file_id)
    return [
        _counts(file, each, of_each[place]) for place, (file, each) in enumerate(zip(files, staged, strict=True), 1)
    ]


def _counts(file: _Claimed, staged: _Staged, merged: Mapping[str, int]) -> Counts:
    wrote = merged["inserted"] + merged["updated"]
    return Counts(
        read=staged.read,
        inserted=merged["inserted"],
        updated=merged["updated"],
        unchanged=merged["moved"] - wrote,
        stale=merged["tickets"] - merged["moved"],
        superseded=staged.tickets - merged["tickets"],
        rejected=staged.rejected,
        alarms=staged.alarms,
        sentinels=staged.sentinels,
        closures=merged["closures"],
        never=file.rows.never,
    )


def _notes(connection: Connection, feed: Feed, files: Sequence[_Claimed]) -> list[dict[str, Any]]:
    undeclared = {file.claim.file_id: file.rows.notes.undeclared for file in files}
    new = ledger.record_undeclared(connection, feed.name, undeclared)
    found = [(file.rows.notes.as_dict(), new.get(file.claim.file_id)) for file in files]
    return [told | ({"new": first} if first else {}) for told, first in found]


def _watermark(files: Sequence[_Claimed], inserted: int) -> database.Statement:
    """To the newest of them, which is the last."""
    newest = files[-1]
    sighting = newest.version.sighting
    name = "count_import" if sighting.seen_by == "import" else "move_watermark"
    return database.Statement(
        "merge", name, sighting.parameters() | {"epoch": newest.claim.epoch, "inserted": inserted}
    )


def _latest(sighting: Sighting, of_database: datetime) -> datetime:
    """What it is by the clock that is ahead: one that is behind must not make every file one of the future."""
    clocks = [sighting.seen_at, of_database]
    if sighting.seen_by != "import":  # a local file has its time from whoever touched it
        clocks.append(sighting.object_time)
    return max(clocks)


def _claimed_before(connection: Connection, sighting: Sighting, *, takes_back: bool) -> AlreadyApplied | Duplicate:
    known = ledger.count_duplicate(connection, sighting)
    if known.state == "failed":
        return duplicate_of_failed(sighting, is_dead_letter=known.is_dead_letter)
    if known.sha256 is None:
        return Duplicate(known.key, known.reason or "")
    if known.is_back and known.state != "applied" and not (takes_back or sighting.is_archived):
        # It stays where it is: archived, nobody would find it once the policy takes it.
        ledger.record_back_passed_over(connection, sighting, known.file_id)
        return Duplicate(known.key, _PASSED_OVER)
    # What is to be archived is the put that was read now, which may be a later one of the same bytes.
    return AlreadyApplied(LedgerFile(known.file_id, sighting.put, known.sha256, known.state, known.decided_at))


def duplicate_of_failed(sighting: Sighting, *, is_dead_letter: bool) -> Duplicate:
    return Duplicate(sighting.key.key, "is a dead letter" if is_dead_letter else "waits for its retry")


def _stage(connection: Connection, files: Sequence[_Claimed], reached: Reached) -> list[_Staged]:
    staged = [_Staged() for _ in files]
    with connection.cursor() as cursor, cursor.copy(statements("merge")["copy_to_staging"]) as copy:
        for place, (file, count) in enumerate(zip(files, staged, strict=True), 1):
            _copy(copy, place, file.rows, count, reached)
            if place < len(files):
                reached("between files")
    return staged


def _copy(copy: Copy, place: int, rows: Rows, count: _Staged, reached: Reached) -> None:
    read = rejected = alarms = sentinels = closed = 0
    for row in rows:
        read += 1
        match row:
            case TicketRow(line, ticket_id, raw, closed_at):
                closed += closed_at is not None
                copy.write_row((place, line, ticket_id, raw, closed_at, None, None, None, None))
            case RowReject(line, reason, raw, group, _, lines, ticket_id):
                rejected += 1
                copy.write_row((place, line, ticket_id, None, None, reason, raw, group, lines))
            case Dropped.ALARM:
                alarms += 1
            case Dropped.SENTINEL:
                sentinels += 1
        if read == 1:
            reached("mid copy")
    count.read, count.rejected, count.alarms, count.sentinels, count.closed = read, rejected, alarms, sentinels, closed


def _follow_ons_asked(feed: Feed, done: Mapping[int, ledger.Done]) -> list[database.Statement]:
    asked = [(file_id, kind) for file_id, each in done.items() for kind in _follow_ons(feed, each.counts)]
    if not asked:
        return []
    file_ids, kinds = zip(*asked, strict=True)
    return [database.Statement("merge", "request_follow_ons", {"file_ids": list(file_ids), "kinds": list(kinds)})]


def _follow_ons(feed: Feed, counts: Counts) -> list[str]:
    """What of the feed's follow-ons there is something to do for, in the order of their names."""
    wrote = counts.inserted or counts.updated
    wanted = {FollowOn.GEOCODE: wrote, FollowOn.HISTORY: wrote or counts.closures}
    return [kind.value for kind in sorted(feed.follow_ons) if wanted[kind]]
