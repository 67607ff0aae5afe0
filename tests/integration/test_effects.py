"""What a file would change is told as the merge then does it, also beside others; and nothing of it stays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from consumer.feeds.declared import packaged_feeds
from consumer.files.applying import Watch
from consumer.files.versions import Sighting
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from consumer.upkeep.drain import import_csv
from consumer.upkeep.effects import Examples
from consumer.upkeep.preview import Preview, preview_file
from tests.integration.change_files import ChangeFile

INC = packaged_feeds().named("inc")
BEFORE, NAME = "2026-06-25T100000", "2026-06-25T142000.csv"
VALUES = {
    "normalized_status": "open", "raw_status": "NEW", "bucket": "b", "is_actionable": "true", "cluster": "Westlands",
    "region": "nairobi", "location_name": "Gate B", "assigned_team": "team", "owner": "Amina", "sla_status": "met",
    "mttr": "90", "created_at_service": "2026-06-01 10:00", "scheduled_at": "2026-06-02 10:00",
    "closed_at": "2026-06-03 10:00", "first_seen_at": "2026-06-01 10:00", "last_seen_at": "2026-06-03 10:00",
    "source_created_at": "2026-06-01 10:00", "source_updated_at": "2026-06-03 10:00",
}  # fmt: skip
"""Of a closed ticket, in each column that its exporter always writes."""
TABLES = ("tickets.inc", "tickets.closure_events", "tickets.import_meta", "ingest.ledger", "ingest.inc_positions",
          "ingest.rejects", "ingest.outbox", "ingest.undeclared_columns")  # fmt: skip

WAITING = """SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
             WHERE NOT granted AND datname = current_database()"""


def row(ticket_id: str, **values: str) -> str:
    return ",".join([ticket_id, *(VALUES | values).values()])


def body(*rows: str, header: str = "") -> str:
    return "\n".join([header or ",".join(["ticket_id", *VALUES]), *rows, ""])


@pytest.fixture
def preview(pool: Pool, tmp_path: Path) -> Callable[..., Preview]:
    """Tell what a file would do, and hold that it did nothing."""

    def tell(
        content: str, name: str = NAME, *, may_lack_columns: bool = False, settings: ApplySettings | None = None
    ) -> Preview:
        path = tmp_path / name
        path.write_text(content)
        before = everything(pool)
        told = preview_file(
            pool, INC, path, settings or ApplySettings(), may_lack_columns=may_lack_columns, told=lambda _: None
        )
        assert everything(pool) == before
        return told

    return tell


def everything(pool: Pool) -> dict[str, list[dict[str, Any]]]:
    with pool.connection() as connection:
        return {
            table: connection.execute(f"SELECT found::text FROM {table} AS found ORDER BY 1".encode()).fetchall()  # noqa: S608
            for table in TABLES
        }


def test_a_closed_ticket_that_would_be_open_is_a_danger_with_its_change(apply: Any, preview: Any) -> None:
    apply(ChangeFile(BEFORE, body(row("E1"), row("E2"), row("E3"))))
    told = preview(body(row("E1", closed_at=""), row("E2", closed_at="NULL"), row("E3", owner="Dina"), row("E4")))
    assert told.dangers == ["2 tickets would be reopened, such as E1"]
    assert (told.verdict, told.decision, told.is_bad) == ("dangerous", "new", True)
    assert (told.rows.inserted, told.rows.updated) == (1, 3)
    shown = [(one.ticket_id, one.line, [(c.column, c.before, c.after) for c in one.changes]) for one in told.changed]
    assert shown == [
        ("E1", 2, [("closed_at", "2026-06-03 10:00", None)]),
        ("E2", 3, [("closed_at", "2026-06-03 10:00", None)]),
        ("E3", 4, [("owner", "Amina", "Dina")]),
    ]


def test_a_date_that_means_never_reopens_as_an_empty_one_does(apply: Any, preview: Any) -> None:
    apply(ChangeFile(BEFORE, body(row("E1"))))
    told = preview(body(row("E1", closed_at="0001-01-01 00:00")))
    assert told.dangers == ["1 ticket would be reopened, such as E1"]
    assert told.rows.never == 1


def test_each_column_that_would_become_empty_is_a_danger_of_its_own(apply: Any, preview: Any) -> None:
    apply(ChangeFile(BEFORE, body(row("E1"), row("E2"), row("E3", cluster=""))))
    told = preview(
        body(row("E1", cluster="", mttr="", is_actionable=""), row("E2", cluster="N/A"), row("E3", cluster=""))
    )
    assert told.dangers == [
        "column cluster would become empty in 2 rows, such as E1",
        "column is_actionable would become empty in 1 row, such as E1",
        "column mttr would become empty in 1 row, such as E1",
    ]


def test_what_was_no_value_before_is_not_lost(pool: Pool, apply: Any, preview: Any) -> None:
    """Rows of before may have a word for nothing, or what is none of its form: no reader of the columns loses it."""
    apply(ChangeFile(BEFORE, body(row("E1"))))
    with pool.connection() as connection:
        odd = '{"owner": "NULL", "mttr": "soon", "closed_at": "1900-01-01", "cluster": ""}'
        connection.execute("UPDATE tickets.inc SET raw = raw || %s::jsonb", (odd,))
    assert preview(body(row("E1", owner="", mttr="", closed_at="", cluster=""))).dangers == []


def test_what_a_later_change_has_overtaken_is_told_and_no_danger(apply: Any, preview: Any) -> None:
    apply(ChangeFile("2026-06-26T100000", body(row("E1"))))
    told = preview(body(row("E1", closed_at="")))
    assert (told.verdict, told.rows.stale, told.dangers, told.changed) == ("fine", 1, [], [])


def test_a_line_that_is_replaced_by_a_later_one_blanks_nothing(apply: Any, preview: Any) -> None:
    apply(ChangeFile(BEFORE, body(row("E1"))))
    told = preview(body(row("E1", closed_at=""), row("E1", owner="Dina")))
    assert (told.verdict, told.rows.superseded, [one.line for one in told.changed]) == ("fine", 1, [3])


def test_the_header_is_told_column_by_column(preview: Any) -> None:
    names = {"closed_at": "Closed At", "cluster": "\u200bCLUSTER"}
    header = ",".join(["ticket_id", *(names.get(name, name) for name in VALUES), "department", "note", "owner"])
    told = preview(body(row("E1") + ",it,hello,Amina", header=header))
    judged = {one.name: (one.column, one.kept, one.remarks) for one in told.columns}
    assert told.verdict == "fine"
    assert len(told.columns) == len(VALUES) + 4
    assert judged["ticket_id"] == ("ticket_id", "id", [])
    assert judged["region"] == ("region", "typed", [])
    assert judged["Closed At"] == ("closed_at", "typed", ["renamed"])
    assert judged["\u200bCLUSTER"] == ("cluster", "typed", ["renamed"])
    assert judged["department"] == ("department", "raw", [])
    assert judged["note"] == ("note", "raw", ["undeclared", "new"])
    assert judged["owner"] == ("owner", "typed", ["twice"])


def test_a_column_is_new_once(apply: Any, preview: Any) -> None:
    content = body(row("E1") + ",hello", header=",".join(["ticket_id", *VALUES, "note"]))
    apply(ChangeFile(BEFORE, content))
    assert [one.remarks for one in preview(content).columns if one.name == "note"] == [["undeclared"]]


def test_a_header_further_down_is_told_too(preview: Any) -> None:
    further = ",".join(["ticket_id", *VALUES, "note"]).replace("owner", "Owner")
    told = preview(body(row("E1"), further, row("E2") + ",hello"))
    assert told.rows.inserted == 2
    assert [(one.name, one.column, one.remarks) for one in told.columns if one.remarks] == [
        ("note", "note", ["undeclared", "further down", "new"]),
        ("Owner", "owner", ["renamed", "further down"]),
    ]


def without(*names: str) -> tuple[str, Callable[..., str]]:
    """A header that lacks columns, and its rows."""
    kept = [name for name in VALUES if name not in names]
    return ",".join(["ticket_id", *kept]), lambda ticket: ",".join([ticket, *(VALUES[name] for name in kept)])


def test_columns_that_are_missing_refuse_the_file_and_can_be_let_go(apply: Any, preview: Any) -> None:
    apply(ChangeFile(BEFORE, body(row("E1"))))
    header, short = without("closed_at", "cluster")
    told = preview(body(short("E1"), header=header))
    assert (told.verdict, told.reason, told.detail) == ("refused", "columns missing", "cluster, closed_at")
    missing = [(one.name, one.column) for one in told.columns if "missing" in one.remarks]
    assert missing == [(None, "cluster"), (None, "closed_at")]
    assert (told.rows, told.dangers) == (None, [])

    let_go = preview(body(short("E1"), header=header), may_lack_columns=True)
    assert (let_go.verdict, let_go.decision) == ("dangerous", "new")
    assert let_go.dangers == [
        "1 ticket would be reopened, such as E1", "column cluster would become empty in 1 row, such as E1",
    ]  # fmt: skip
    assert [one.column for one in let_go.columns if "missing" in one.remarks] == ["cluster", "closed_at"]

    allowing = ApplySettings.model_validate({"FLEETTICKETS_MISSING_COLUMNS": "allow"})
    assert preview(body(short("E1"), header=header), settings=allowing) == let_go


def test_rejected_rows_are_grouped_by_what_is_wrong(preview: Any) -> None:
    bad = [row(f"B{number}", mttr=f"soon {number}") for number in range(5)]
    good = [row(f"G{number}") for number in range(9)]
    told = preview(body(*bad, row("1.23E+11"), *good))
    assert (told.verdict, told.rows.rejected, told.lines.rejected, told.lines.read) == ("fine", 6, 6, 16)
    (many, one) = told.rejected
    assert (many.rows, [first.line for first in many.first]) == (5, [2, 3, 4])
    assert "'soon 0'" in many.first[0].reason
    assert "soon" not in many.reason
    assert (one.rows, one.first[0].line) == (1, 7)
    assert "spreadsheet" in one.reason


def test_a_file_that_is_refused_for_its_rejects_tells_them(preview: Any) -> None:
    told = preview(body(*(row(f"B{number}", mttr="soon") for number in range(20)), row("G")))
    assert (told.verdict, told.reason, told.rows) == ("refused", "too many rejects", None)
    assert [(kind.rows, len(kind.first)) for kind in told.rejected] == [(20, 3)]


@pytest.mark.parametrize(
    ("content", "reason"), [("", "no header"), ("PK\x03\x04zip", "not CSV"), ("a,b\n1,2\n", "no ticket_id")]
)
def test_what_has_no_header_is_refused_without_columns(preview: Any, content: str, reason: str) -> None:
    told = preview(content)
    assert (told.verdict, told.reason, told.columns) == ("refused", reason, [])


def test_what_was_applied_before_has_nothing_to_do(pool: Pool, preview: Any, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(body(row("E1")))
    import_csv(pool, INC, path, ApplySettings(), apply=True, told=lambda _: None)
    told = preview(body(row("E1")))
    assert (told.verdict, told.reason) == ("nothing to do", "it was applied before")
    assert len(told.columns) == len(VALUES) + 1


@contextmanager
def in_the_middle(monkeypatch: pytest.MonkeyPatch, watch: type[Watch], do: Callable[[], None]) -> Iterator[None]:
    """Another's work begins when what was there before the merge is kept, and the merge comes after it or waits."""
    staged = watch.staged

    def and_then(self: Watch, connection: Connection, sighting: Sighting, file_id: int) -> None:
        staged(self, connection, sighting, file_id)
        do()

    with monkeypatch.context() as patched:
        patched.setattr(watch, "staged", and_then)
        yield


def test_what_another_applies_meanwhile_is_not_taken_for_this_files_doing(
    pool: Pool, apply: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both know a ticket that is there and one that is new, in between those of the other."""
    apply(ChangeFile(BEFORE, body(row("E2"), row("E4"))))
    others: list[Thread] = []
    earlier = ChangeFile("2026-06-25T120000", body(row("E2", cluster=""), row("E3", cluster=""), row("E4", owner="")))

    def begin() -> None:
        other = Thread(target=apply, args=(earlier,))
        other.start()
        others.append(other)
        while other.is_alive():
            with pool.connection() as connection:
                if connection.execute(WAITING).fetchone() is not None:
                    return
        raise AssertionError("it did not wait")

    path = tmp_path / NAME
    path.write_text(body(row("E1"), row("E2", owner="Dina"), row("E3"), row("E4")))
    with in_the_middle(monkeypatch, Examples, begin):
        told = preview_file(pool, INC, path, ApplySettings(), may_lack_columns=False, told=lambda _: None)
    others[0].join()
    assert told.rows is not None
    assert (told.rows.inserted, told.rows.updated, told.dangers) == (2, 1, [])
    assert [(one.ticket_id, [c.column for c in one.changes]) for one in told.changed] == [("E2", ["owner"])]
    with pool.connection() as connection:
        found = connection.execute("SELECT ticket_id, cluster, owner FROM tickets.inc ORDER BY 1").fetchall()
    assert [tuple(one.values()) for one in found] == [
        ("E2", None, "Amina"), ("E3", None, "Amina"), ("E4", "Westlands", None),
    ]  # fmt: skip


def test_while_it_looks_others_can_commit_files_of_other_tickets(
    pool: Pool, apply: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every file takes is not held while tickets are compared."""
    apply(ChangeFile(BEFORE, body(row("E1"))))
    looked: list[str] = []
    merged = Examples.merged

    def slowly(self: Examples, connection: Connection, sighting: Sighting, file_id: int) -> None:
        merged(self, connection, sighting, file_id)
        apply(ChangeFile("2026-06-25T130000", body(row("F1"))))
        looked.append("others went on")

    monkeypatch.setattr(Examples, "merged", slowly)
    path = tmp_path / NAME
    path.write_text(body(row("E1", closed_at="")))
    told = preview_file(pool, INC, path, ApplySettings(), may_lack_columns=False, told=lambda _: None)
    assert (told.verdict, looked) == ("dangerous", ["others went on"])
    with pool.connection() as connection:
        assert connection.execute("SELECT FROM tickets.inc WHERE ticket_id = 'F1'").fetchone() is not None


def test_of_a_large_file_examples_alone_come_here(apply: Any, preview: Any) -> None:
    apply(ChangeFile(BEFORE, body(*(row(f"E{number:05}") for number in range(5000)))))
    told = preview(body(*(row(f"E{number:05}", closed_at="") for number in range(5000))))
    assert told.dangers == ["5,000 tickets would be reopened, such as E00000"]
    assert [one.ticket_id for one in told.changed] == [f"E{number:05}" for number in range(10)]
    assert told.rows.updated == 5000
