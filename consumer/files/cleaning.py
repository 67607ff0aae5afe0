"""What one row goes through: dropped, rejected with a reason, or a ticket fit for its typed columns. Pure.

Which column is what, its feed says: alarms and the exporter's sentinel are dropped, case is brought to one form, empty
is null, and every value that was in the file stays in `raw`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from itertools import compress
from typing import NamedTuple

from consumer.feeds.feed import Feed, FollowOn, Form
from consumer.feeds.folding import folded_name, mended_id
from consumer.files.decoding import undecoded
from consumer.files.header import Header, known_columns
from consumer.files.ids import MAX_ID_CHARS
from consumer.files.reading import NOT_UTF8, Record
from consumer.files.values import Fault, Value, as_json, file_columns, in_case, null_member, read_timestamp, told
from publisher.errors import Permanent

CLOSED_AT = "closed_at"
"""Where a feed has a history, the column that says when a ticket was closed."""
MAX_FIELD_CHARS = 1024 * 1024
_SHOWN_CHARS = 10_000
ENCODING, ROW, SIZE, ID = "encoding", "row", "size", "id"
RULES = (*(form.value for form in Form if form is not Form.ANY), ENCODING, ROW, SIZE, ID)
"""What rejects are counted by: the form of a column; bytes that are no text; no row of the header; the id."""


class Dropped(Enum):
    """A row that is left out on purpose and counted."""

    ALARM = auto()
    SENTINEL = auto()


@dataclass(frozen=True, slots=True)
class RowReject:
    """What cannot be a ticket: so many `lines` of the file from `line` on.

    `group` is the reason without what is one row's, `rule` the one of RULES that it breaks; `ticket_id` what stands
    where the id belongs, if that can be one.
    """

    line: int
    reason: str
    raw: str
    group: str
    rule: str
    lines: int = 1
    ticket_id: str | None = None


class TicketRow(NamedTuple):
    """A row that can; `raw` is JSON text, `closed_at` the instant or None.

    In `raw` is each of the feed's own columns that the file has, null where it is empty, and each other one that has a
    value; in the order in which jsonb keeps them, since the database takes what is sorted in half the time.
    """

    line: int
    ticket_id: str
    raw: str
    closed_at: datetime | None


class Cleaner:
    """Judges the rows of one header; `first` is that of the file, if that is another one.

    `never` counts the dates so far that are of no year that a ticket can be of, and so say that there is none.
    """

    def __init__(self, header: Header, feed: Feed, first: Header | None = None) -> None:
        self.header = header
        self.never = 0
        self._feed = feed
        self._folded_names = known_columns(feed).keys()
        self._columns = file_columns(header.names, feed)
        declared = {name: place for place, name in enumerate(feed.columns)}
        self._as_declared = sorted(
            range(header.width), key=lambda place: declared.get(header.names[place], len(declared))
        )
        self._as_kept = sorted(range(header.width), key=lambda place: _in_jsonb(header.names[place]))
        self._id = f", {as_json(feed.id)}: "
        self._id_case = feed.columns[feed.id].case
        self._twins = [twins for twins in header.twins if header.names[twins[0]] not in feed.never_kept]
        has_closed = FollowOn.HISTORY in feed.follow_ons and CLOSED_AT in header.names
        self._closed_place = header.names.index(CLOSED_AT) if has_closed else None
        # So rows of a later header have the columns of the first one as well.
        of_first = () if first is None else first.names
        others = (name for name in of_first if name in feed.columns and name not in header.names)
        self._of_first = "".join(map(null_member, others))

    def clean_all(self, records: Sequence[Record]) -> Iterator[TicketRow | RowReject | Dropped]:
        """Clean several. What is usual is looked up a column at a time, which is quicker than row by row.

        Raises: as `clean`.
        """
        may_be = [self._may_be_usual(record) for record in records]
        usual = self._usual([*compress(records, may_be)])
        for record, is_one in zip(records, may_be, strict=True):
            row = next(usual) if is_one else None
            yield row or self.clean(record)

    def _may_be_usual(self, record: Record) -> bool:
        raw, sentinel = record.raw, self._feed.sentinel
        is_long, is_odd = len(raw) > MAX_FIELD_CHARS, sentinel is not None and (sentinel in raw or '"' in sentinel)
        return not (record.fault or is_long or is_odd or "\0" in raw) and len(record.fields) == self.header.width

    def _usual(self, records: Sequence[Record]) -> Iterator[TicketRow | None]:
        """The tickets of those that may be usual; None where there is more to say."""
        columns = [*zip(*(record.fields for record in records), strict=True)]
        if not columns:
            return
        ids = [self._usual_id(text) for text in columns[self.header.id_place]]
        members = [map(self._columns[place].__getitem__, columns[place]) for place in self._as_kept]
        members[self._as_kept.index(self.header.id_place)] = map(self._id_member, ids)
        for record, ticket_id, found in zip(records, ids, zip(*members, strict=True), strict=True):
            text = _joined(found)
            yield None if ticket_id is None or text is None else self._ticket(record, ticket_id, text)

    def _id_member(self, ticket_id: str | None) -> str | None:
        return ticket_id and self._id + as_json(ticket_id)

    def _usual_id(self, text: str) -> str | None:
        ticket_id, wrong = mended_id(text.strip())
        ticket_id = in_case(ticket_id, self._id_case)
        return None if self._id_fault(ticket_id, wrong) else ticket_id

    def _ticket(self, record: Record, ticket_id: str, members: str) -> TicketRow:
        """Raises: Permanent, for a column that stands in the file twice and with another value each time."""
        for one, other in self._twins:
            self._require_alike(record, one, other)
        raw = f"{{{members.removeprefix(', ')}{self._of_first}}}"
        return TicketRow(record.line, ticket_id, raw, self._closed_at(record.fields))

    def clean(self, record: Record) -> TicketRow | RowReject | Dropped:
        """Raises: Permanent, for a column that stands in the file twice and with another value each time."""
        feed, fields, id_place = self._feed, record.fields, self.header.id_place
        if feed.sentinel and _is_sentinel(fields, id_place, feed.sentinel):
            return Dropped.SENTINEL
        if record.fault:
            rule = ENCODING if record.fault.startswith(NOT_UTF8) else ROW
            return self._reject(record, told(record.fault, rule))
        ticket_id, wrong = mended_id(fields[id_place].strip() or self._twin_of_id(fields))
        ticket_id = in_case(ticket_id, self._id_case)
        if fault := self._id_fault(ticket_id, wrong) or self._size_fault(record):
            return self._reject(record, fault)
        values = [column.value(field) for column, field in zip(self._columns, fields, strict=True)]
        # For the first that it breaks, as the feed declares its columns.
        if fault := next(filter(None, (values[place].fault for place in self._as_declared)), None):
            return self._reject(record, fault)
        if any(value.drops for value in values):
            return Dropped.ALARM
        never = (name for name, value in zip(self.header.names, values, strict=True) if value.is_never)
        self.never += len(set(never))  # of a column that stands there twice it is one date
        values[id_place] = Value(f"{self._id}{as_json(ticket_id)}")
        return self._ticket(record, ticket_id, "".join(values[place].member for place in self._as_kept))

    def _twin_of_id(self, fields: list[str]) -> str:
        """What stands in another column of the id, where one has nothing."""
        places = (other for one, other in self.header.twins if one == self.header.id_place)
        return next(filter(None, (fields[place].strip() for place in places)), "")

    def _size_fault(self, record: Record) -> Fault | None:
        if "\0" in record.raw:
            return told("has a NUL byte in it", ENCODING)
        if len(record.raw) <= MAX_FIELD_CHARS:
            return None
        kept = zip(self.header.names, record.fields, strict=True)
        longest = max(len(field.strip()) for name, field in kept if name not in self._feed.never_kept)
        is_too_long = longest > MAX_FIELD_CHARS
        complaint = f"has a field of {longest:,} characters, more than {MAX_FIELD_CHARS:,}"
        return told(complaint, SIZE) if is_too_long else None

    def _closed_at(self, fields: list[str]) -> datetime | None:
        if self._closed_place is None or not (text := fields[self._closed_place].strip()):
            return None
        return read_timestamp(text)

    def _require_alike(self, record: Record, one: int, other: int) -> None:
        """Of one column that stands there twice, both have to mean the same."""
        header, column = self.header, self._columns[one]
        texts = [record.fields[place].strip() for place in (one, other)]
        meant = mended_id if header.names[one] == self._feed.id else column.meant
        if texts[0] == texts[1] or meant(texts[0]) == meant(texts[1]):
            return
        places: dict[str, list[int]] = {}
        for place, others in header.twins:
            places.setdefault(header.names[place], [place]).append(others)
        twice = "; ".join(
            f"{name} as {' and '.join(repr(header.written[at][:60]) for at in found)}" for name, found in places.items()
        )
        told_apart = " and ".join(
            f"{text[:60]!r} under {header.written[place][:60]!r}"
            for text, place in zip(texts, (one, other), strict=True)
        )
        raise Permanent("columns twice", f"{twice}; line {record.line} has {told_apart}: leave all but one of each out")

    def _id_fault(self, ticket_id: str, wrong: str | None) -> Fault | None:
        """What is wrong with an id, which is mended otherwise; `wrong` is what no mending helps."""
        name = self._feed.id
        if not ticket_id or ticket_id in self._feed.nothing:
            return told(f"has no {name}", ID)
        if wrong and "\0" not in ticket_id:
            return Fault(f"{name} {ticket_id[:60]!r} {wrong}", f"{name} {wrong}", ID)
        if len(ticket_id) > MAX_ID_CHARS:
            return told(f"has a {name} of {len(ticket_id):,} characters, more than {MAX_ID_CHARS}", ID)
        if not ticket_id[-1].isdigit() and folded_name(ticket_id) in self._folded_names:
            return told("has the name of a column where an id belongs", ID)
        return None

    def _reject(self, record: Record, fault: Fault) -> RowReject:
        place = self.header.id_place
        raw = record.raw.rstrip("\r\n")[:_SHOWN_CHARS].replace("\0", "\u2400")
        text = record.fields[place].strip() if len(record.fields) > place else ""
        ticket_id, wrong = mended_id(text[: MAX_ID_CHARS + 1])
        is_one = ticket_id and not wrong and len(ticket_id) <= MAX_ID_CHARS and undecoded(ticket_id) is None
        return RowReject(
            record.line, fault.told, _encodable(raw), fault.group, fault.rule, record.lines,
            ticket_id if is_one else None,
        )  # fmt: skip


def _joined(members: Iterable[str | None]) -> str | None:
    """None where one of them has more to be said of it; to look for that one first takes longer."""
    try:
        return "".join(members)  # type: ignore[arg-type]
    except TypeError:
        return None


def _in_jsonb(name: str) -> tuple[int, bytes]:
    """What keys are ordered by there."""
    return len(name.encode()), name.encode()


def _is_sentinel(fields: list[str], id_place: int, sentinel: str) -> bool:
    if fields and fields[0].lstrip().startswith(sentinel):
        return True
    return id_place < len(fields) and fields[id_place].lstrip().startswith(sentinel)


def _encodable(text: str) -> str:
    """With what is no UTF-8 shown as the byte that it is."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
