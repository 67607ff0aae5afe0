"""The exactly-once rule: everything that a file means, in one transaction, or nothing of it.

Order matters: claim the version, stage the rows, merge, closures, rejects, ledger, follow-on requests, checks that
were put off, and the watermark last, which every file takes and so must hold for the shortest time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from consumer.fail_points import Reached
from consumer.feeds.feed import Feed, FollowOn
from consumer.files import ledger
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


def apply_file(
    connection: Connection,
    sighting: Sighting,
    read: Read,
    settings: ApplySettings,
    *,
    asked: Asked,
    reached: Reached,
    released: str | None = None,
    may_lack_columns: bool = False,
    watch: Watch = UNWATCHED,
) -> Applied | AlreadyApplied | Duplicate:
    """Apply one version inside the caller's transaction, which holds the key's lock and keeps or undoes all of it.

    `read` gives up to so many bytes of it at a time. `reached` is told each point that a crash could come at. Under
    quarantine a person releases the version with the ETag `released`, or whichever there is when that is None; and lets
    that one lack columns which its exporter always writes, if it `may_lack_columns`. `watch` is shown what it does.
    Raises: Permanent, DependencyDown, psycopg.Error.
    """
    reached("before claim")
    if settings.changed_policy == "quarantine" and released not in (None, sighting.etag):
        asked = Asked.BY_ITS_RETRY  # of these bytes nobody has seen a letter
    takes_back = takes_changed_back(settings, asked) and not sighting.is_archived
    claim = ledger.claim(connection, sighting, asked, takes_back=takes_back)
    if claim is not None or not sighting.is_archived:
        ledger.record_replaced(connection, sighting)
    if claim is None:
        return _claimed_before(connection, sighting, takes_back=takes_back)
    reached("after claim")
    file_id, decision = claim.file_id, claim.decision
    if decision == "changed" and settings.changed_policy == "ignore":
        ledger.record_passed_over(connection, file_id, _PASSED_OVER)
        return Duplicate(sighting.key.key, _PASSED_OVER)
    if decision == "changed" and settings.changed_policy == "quarantine" and asked is not Asked.BY_A_PERSON:
        raise Permanent("changed", "the key was applied before with other bytes; replay it to apply these")
    if sighting.key.time > (now := _latest(sighting, claim.now)) + _AHEAD:
        raise Permanent(
            FROM_THE_FUTURE,
            f"its name says {sighting.key.time:%Y-%m-%d %H:%M} UTC, and by the latest clock of consumer, database and "
            f"store it is {now:%Y-%m-%d %H:%M}; when it is due, replay its dead letter, or drain",
        )
    is_let_off = may_lack_columns and released in (None, "", sighting.etag)
    # What is archived was applied once, so somebody has let it off.
    allows_missing = is_let_off or sighting.is_archived or settings.missing_columns == "allow"
    rows = Rows(read, sighting.feed, max_reject_share=settings.max_reject_share, allows_missing=allows_missing)
    staged = _stage(connection, rows, reached)
    parameters = sighting.parameters() | {
        "file_id": file_id, "epoch": claim.epoch, "object_time": claim.object_time, "blanks": rows.blanks,
    }  # fmt: skip
    watch.staged(connection, sighting, file_id)
    merged = database.row(connection, "merge", "merge_tickets", parameters, feed=sighting.feed)
    assert merged is not None  # noqa: S101 - counts always make a row
    watch.merged(connection, sighting, file_id)
    closures = 0
    if FollowOn.HISTORY in sighting.feed.follow_ons:
        closures = connection.execute(statements("merge")["merge_closures"], parameters).rowcount
    ledger.keep_rejects(connection, file_id)
    counts = Counts(
        read=staged.read,
        inserted=merged["inserted"],
        updated=merged["updated"],
        unchanged=merged["moved"] - merged["inserted"] - merged["updated"],
        stale=merged["tickets"] - merged["moved"],
        superseded=merged["accepted"] - merged["tickets"],
        rejected=staged.rejected,
        alarms=staged.alarms,
        sentinels=staged.sentinels,
        closures=closures,
        never=rows.never,
    )
    notes = rows.notes
    new = ledger.record_undeclared(connection, sighting.feed.name, file_id, notes.undeclared)
    told = notes.as_dict() | ({"new": new} if new else {})
    done = ledger.Done(rows.sha256, counts, rows.lines, told)
    applied_at = ledger.record_applied(connection, sighting, file_id, done)
    if kinds := _follow_ons(sighting.feed, counts):
        database.rows(connection, "merge", "request_follow_ons", {"file_id": file_id, "kinds": kinds})
    watermark = "count_import" if sighting.seen_by == "import" else "move_watermark"
    database.rows(connection, "merge", "fire_deferred")
    database.rows(connection, "merge", watermark, parameters | {"inserted": counts.inserted})
    reached("before commit")
    file = LedgerFile(file_id, sighting.put, done.sha256, "applied", applied_at)
    return Applied(file, decision, counts, told)


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


@dataclass(frozen=True, slots=True)
class _Staged:
    """How many rows of a file were read, and how many of them rejected or dropped."""

    read: int
    rejected: int
    alarms: int
    sentinels: int


def _stage(connection: Connection, rows: Rows, reached: Reached) -> _Staged:
    count = rejected = alarms = sentinels = 0
    with connection.cursor() as cursor, cursor.copy(statements("merge")["copy_to_staging"]) as copy:
        for row in rows:
            count += 1
            match row:
                case TicketRow(line, ticket_id, raw, closed_at):
                    copy.write_row((line, ticket_id, raw, closed_at, None, None, None, None))
                case RowReject(line, reason, raw, group, lines, ticket_id):
                    rejected += 1
                    copy.write_row((line, ticket_id, None, None, reason, raw, group, lines))
                case Dropped.ALARM:
                    alarms += 1
                case Dropped.SENTINEL:
                    sentinels += 1
            if count == 1:
                reached("mid copy")
    return _Staged(count, rejected, alarms, sentinels)


def _follow_ons(feed: Feed, counts: Counts) -> list[str]:
    """What of the feed's follow-ons there is something to do for, in the order of their names."""
    wrote = counts.inserted or counts.updated
    wanted = {FollowOn.GEOCODE: wrote, FollowOn.HISTORY: wrote or counts.closures}
    return [kind.value for kind in sorted(feed.follow_ons) if wanted[kind]]
