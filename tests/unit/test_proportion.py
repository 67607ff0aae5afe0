"""What a file may cost, against what was read of it."""

import io
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.demo import model
from consumer.feeds.declared import packaged_feeds
from consumer.files import proportion
from consumer.files.cleaning import RowReject, TicketRow
from consumer.files.decoding import Read
from consumer.files.proportion import MULTIPLE, Cost
from consumer.files.rows import KEPT_REJECTS, Rows, TooManyRejects
from publisher.errors import Permanent
from tests.stage.feeds import COLUMNS, RandomFeed, csv, lines, ticket

INC = packaged_feeds().named("inc")

FLAGS = ("ticket_id", "created_at_service", "location_name", *(f"is_some_flag_of_the_{n:03}" for n in range(50)))
ATTRIBUTES = ("ticket_id", *(f"attribute_{number:05}" for number in range(1000)))


def judged(read: Read) -> Iterator[TicketRow | RowReject]:
    """Every row that would be staged, once its cost is counted."""
    rows = Rows(read, INC, max_reject_share=1.0, allows_missing=True)
    for row in rows:
        if isinstance(row, TicketRow | RowReject):
            yield row


def staged(body: bytes) -> int:
    """Bytes of text that the database has of a file's rows in the end."""
    sent = 0
    for row in judged(io.BytesIO(body).read):
        if isinstance(row, TicketRow):
            sent += len(row.raw.encode())
        else:
            sent += len(row.reason.encode()) + len(row.raw.encode())
    return sent


def many(columns: Iterable[str], values: Iterable[str], count: int = 2000) -> bytes:
    row = tuple(values)
    return lines([tuple(columns), *(("INC%07d" % number, *row) for number in range(count))])  # noqa: UP031


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Headers of short and long names; rows that fit them or do not, all of them over and over."""
    lengths = draw(st.lists(st.sampled_from((1, 20, 300, 2000)), min_size=1, max_size=6))
    names = [draw(st.sampled_from("aé\x01\U0001f600")) * length + str(place) for place, length in enumerate(lengths)]
    columns = draw(st.permutations(("ticket_id", *draw(st.sampled_from(((), COLUMNS[1:]))), *names)))
    value = st.sampled_from(("", "a", "é", "\x01", "\U0001f600" * 30, '"', "2026-06-25"))
    row = st.lists(value, min_size=len(columns), max_size=len(columns)) | st.lists(value, min_size=1, max_size=2)
    rows = draw(st.lists(row, min_size=1, max_size=3))
    return lines([columns, *rows * draw(st.sampled_from((1, 20, 400)))])


@given(bodies())
def test_no_file_is_staged_out_of_proportion(body: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proportion, "ALLOWANCE", 2000)
        patch.setattr(proportion, "MAX_REJECTS", 20_000)
        try:
            assert staged(body) <= MULTIPLE * len(body) + 2000
        except Permanent as refused:
            assert refused.reason in {"out of proportion", "too many rejects", "header too large"}  # noqa: PT017


def test_a_row_that_closes_its_ticket_costs_the_closure_too() -> None:
    opened, closed = Cost(lambda: 100), Cost(lambda: 100)
    opened.add(TicketRow(2, "INC1", "{}", None))
    closed.add(TicketRow(2, "INC1", "{}", datetime(2026, 6, 25, tzinfo=UTC)))
    assert closed.bytes - opened.bytes == proportion.CLOSURE > 0


@pytest.fixture
def small_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few thousand rows are a large file."""
    monkeypatch.setattr(proportion, "ALLOWANCE", 20_000)


@pytest.mark.parametrize(
    "body",
    [
        many(["ticket_id", "a" * 1000], ["x"]),
        many(["ticket_id", *(f"{number:0100}" for number in range(100))], ["x"] * 100),
        b"ticket_id\n" + b"1\n" * 20_000,
        b"ticket_id,closed_at\n" + b"1,2026-06-25\n" * 20_000,
        b"ticket_id,owner\n" + b"x\n" * 20_000,
        b"ticket_id,owner\n" + b'"x"y\n' * 20_000,
    ],
    ids=["a long name", "long names", "ids", "closures", "bad rows", "broken quotes"],
)
@pytest.mark.usefixtures("small_allowance")
def test_rows_that_cost_a_multiple_of_their_bytes_fail_the_file_early(body: bytes) -> None:
    source = io.BytesIO(body)
    with pytest.raises(Permanent, match=r"out of proportion: its first [\d,]+ bytes would take [\d,]+ in the database"):
        deque(judged(lambda amount: source.read(min(amount, 4096))), 0)
    assert source.tell() < len(body)


@pytest.mark.parametrize(
    "body",
    [
        RandomFeed(seed=5, tickets=300).files(1, rows=1000)[0].body,
        many(["ticket_id", "normalized_status"], ["closed"]),
        many(["ticket_id", "closed_at"], ["2026-06-25 14:20"]),
        many(["ticket_id", *sorted(model.INC.columns - {"ticket_id"})], [""] * 31),
        csv((ticket(f"INC{number:07}") for number in range(2000)), COLUMNS),
        many(FLAGS, ["2026-06-25 14:20:00", "GPON-Westlands-OLT1-FAT2 Gate B", *"0" * 50]),
        many(ATTRIBUTES, ["a value" if number % 100 == 0 else "" for number in range(1000)], 500),
    ],
    ids=["feed", "id and status", "closures", "ids of a wide feed", "tickets", "flags", "many columns, few values"],
)
@pytest.mark.usefixtures("small_allowance")
def test_lean_wide_and_sparse_files_are_in_proportion(body: bytes) -> None:
    assert staged(body)


def test_bad_rows_are_bounded_in_bytes_wherever_the_good_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proportion, "MAX_REJECTS", 1 << 20)
    good, bad = b"INC0000001,a name of usual length\n" * 10_000, b"a row without what it needs\n"
    assert staged(b"ticket_id,owner\n" + bad * 4000 + good)
    for body in (bad * 8000 + good, good + bad * 8000):
        with pytest.raises(
            TooManyRejects, match=r"too many rejects: 1 MB of them by line [\d,]+: [\d,]+ x has N field"
        ) as raised:
            staged(b"ticket_id,owner\n" + body)
        assert len(raised.value.rejects) == KEPT_REJECTS
