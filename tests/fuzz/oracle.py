"""What must have become of a file, by what was written; the engine's way of reading has no part in it."""

import io
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from consumer.feeds.declared import packaged_feeds
from consumer.files.cleaning import Dropped, RowReject, TicketRow
from consumer.files.rows import Rows
from publisher.errors import Permanent
from tests.fuzz.tickets import NOTHING
from tests.fuzz.writing import Fate, Name, Piece, WrittenFile

INC = packaged_feeds().named("inc")
_LINE = re.compile(r"\r\n|\n|\r")


class Differs(AssertionError):
    """What came of a file is not what had to."""


def judge(file: WrittenFile) -> None:
    """Raises: Differs."""
    read = _Read(file)
    try:
        rows = Rows(io.BytesIO(file.content).read, INC, max_reject_share=1.0, allows_missing=file.allows_missing)
        read.take(rows)
    except Permanent as refusal:
        if not {"*", refusal.reason} & file.may_fail:
            raise Differs(f"is refused whole: {refusal.reason}: {refusal}\n{file.content!r}") from refusal
        return
    differences = [*read.differences(rows)]
    if differences:
        raise Differs("\n".join([*differences, file.text, repr(file.content)]))


class _Read:
    def __init__(self, file: WrittenFile) -> None:
        self._file = file
        self._tickets: dict[int, list[TicketRow]] = {}
        self._rejects: list[RowReject] = []
        self._dropped = 0

    def take(self, rows: Rows) -> None:
        for row in rows:
            match row:
                case TicketRow():
                    self._tickets.setdefault(row.line, []).append(row)
                case RowReject():
                    self._rejects.append(row)
                case Dropped():
                    self._dropped += 1

    def differences(self, rows: Rows) -> Iterator[str]:
        rejected = {line for reject in self._rejects for line in range(reject.line, reject.line + reject.lines)}
        line, never, is_part = 1, 0, False
        for piece, following in zip_longest(self._file.pieces, self._file.pieces[1:]):
            taken = self._tickets.pop(line, [])
            was_part, is_part = is_part, following is not None and self._are_one(piece, following, taken)
            if was_part or is_part:
                pass
            elif told := self._difference(piece, taken, is_rejected=line in rejected):
                reasons = [f"{reject.line}+{reject.lines}: {reject.reason}" for reject in self._rejects]
                yield f"line {line}: {told}: {piece.text!r}; rejects {reasons}"
            never += piece.ticket.nevers if piece.ticket and piece.fate is Fate.TAKEN else 0
            line += lines_of(piece.text)
        for row in (row for found in self._tickets.values() for row in found):
            yield f"line {row.line}: there was no such row, and it became ticket {row.ticket_id!r} with {row.raw}"
        counts = rows.lines
        if counts.read != line - 1 or counts.read != lines_of(self._file.text):
            yield f"{line - 1} lines were written, {counts.read} read"
        if counts.read != counts.blank + counts.header + counts.rejected + counts.rows:
            yield f"the counts do not add up: {counts}"
        if self._file.is_exact:
            yield from self._differences_in_all(rows, never)

    def _differences_in_all(self, rows: Rows, never: int) -> Iterator[str]:
        pieces = self._file.pieces
        for what, found, meant in (
            ("dropped", self._dropped, sum(piece.fate is Fate.DROPPED for piece in pieces)),
            ("header lines", rows.lines.header, sum(piece.is_header for piece in pieces)),
            ("rejects", sum(rows.groups.values()), len(self._rejects)),
        ):
            if found != meant:
                yield f"{what}: {found}, not {meant}"

        # A row that is left out may have some, too.
        more = sum(piece.ticket.nevers for piece in pieces if piece.ticket and piece.fate is not Fate.TAKEN)
        if not never <= rows.never <= never + more:
            yield f"dates of never: {rows.never}, not {never}"
        blank = sum(piece.is_blank for piece in pieces)
        if not blank <= rows.lines.blank <= blank + sum(map(_blank_lines, pieces)):
            yield f"blank lines: {rows.lines.blank}, not {blank}"

    def _difference(self, piece: Piece, taken: Sequence[TicketRow], *, is_rejected: bool) -> str | None:
        told = [(row.ticket_id, _values(row), row.closed_at) for row in taken]
        ticket = piece.ticket
        match piece.fate:
            case Fate.TAKEN if ticket and told != [(ticket.ticket_id, ticket.values, ticket.closed_at)]:
                return f"had to be {ticket}, was {told}"
            case Fate.TAKEN if is_rejected:
                return "is a ticket and a reject"
            case Fate.REJECTED if taken or not is_rejected:
                return f"had to be a reject, was {told}"
            case Fate.DROPPED | Fate.NO_ROW if taken:
                return f"is no ticket, was {told}"
            case Fate.DROPPED if is_rejected:
                return "had to be dropped, and is a reject"
            case Fate.EITHER if taken:
                return self._not_what_stands_there(piece, taken)
            case Fate.EITHER if not is_rejected and not piece.may_drop:
                return "is neither a ticket nor a reject"
        return None

    def _are_one(self, piece: Piece, following: Piece, taken: Sequence[TicketRow]) -> bool:
        """Whether a quote that is open and one astray behind it, where no ticket is, make one row.

        As RFC 4180 has it they do; nobody can know that it was not meant.
        """
        if following.fate is not Fate.REJECTED or not all(one.text.count('"') % 2 for one in (piece, following)):
            return False
        read = [*_readings(piece.text + following.text, self._file.delimiter, piece.names)]
        found = [_without_nothing({key: _loose(value) for key, value in _values(row).items()}) for row in taken]
        return len(found) == 1 and found[0] in read

    def _not_what_stands_there(self, piece: Piece, taken: Sequence[TicketRow]) -> str | None:
        """A row that was touched may be taken only as it is, or as its own text says."""
        ticket = piece.ticket
        if len(taken) > 1 or ticket is None:
            return f"is one row at most, was {taken}"
        values = _values(taken[0])
        if (taken[0].ticket_id, values) == (ticket.ticket_id, ticket.values):
            return None
        # Two quotes astray can put an id and what follows it in quotes.
        texts = {piece.row, piece.text}
        read = [found for text in texts for found in _readings(text, self._file.delimiter, piece.names)]
        own = [found.get("ticket_id") for found in read]
        is_last = [name.key for name in piece.names if name.key][-1:] == ["ticket_id"]
        is_cut = not piece.end and (piece.glued_at or is_last)
        is_own = piece.text.count('"') > 1 and _loose(taken[0].ticket_id) in own
        if taken[0].ticket_id != ticket.ticket_id and not is_cut and not is_own:
            return f"its id is {ticket.ticket_id!r}, was {taken[0].ticket_id!r}"
        loose = _without_nothing({key: _loose(value) for key, value in values.items()})
        return None if loose in read else f"was taken as {values}, and its text says {read}"


def lines_of(text: str) -> int:
    """How many physical lines a text has."""
    return len(_LINE.findall(text)) + (bool(text) and text[-1] not in "\r\n")


def _blank_lines(piece: Piece) -> int:
    """Those of a text in a row that cannot be one; such a row may be rejected line by line."""
    if piece.fate is not Fate.REJECTED:
        return 0
    return sum(not line.strip() for line in _LINE.split(piece.body))


def _values(row: TicketRow) -> dict[str, str]:
    return {key: value for key, value in json.loads(row.raw).items() if value is not None}


def _loose(text: str) -> str:
    """Without all that mending may change."""
    folded = unicodedata.normalize("NFC", text).casefold().replace("\u2011", "-")
    return "".join(
        char for char in folded if not char.isspace() and unicodedata.category(char) not in {"Cf", "Cc"}
        and char not in "\"'="
    )  # fmt: skip


_NOTHING = {_loose(word) for word in NOTHING}


def _readings(text: str, delimiter: str, names: Sequence[Name]) -> Iterator[dict[str, str]]:
    """What a row's own text can be read as: of all its lines, or of its first ones."""
    for end in [*(found.end() for found in _LINE.finditer(text)), len(text)]:
        fields = alone(_LINE.sub("\n", text[:end]).removesuffix("\n"), delimiter)
        if fields is not None and (len(fields) <= len(names) or not any(map(str.strip, fields[len(names) :]))):
            keys = (name.key or f"column_{place}" for place, name in enumerate(names, start=1))
            found = {key: _loose(value) for key, value in zip(keys, fields, strict=False)}
            yield _without_nothing(found)


def _without_nothing(values: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value and value not in _NOTHING}


def alone(text: str, delimiter: str) -> list[str] | None:
    """The fields of one record, as RFC 4180 has it, with spaces around them; None where its quotes are wrong."""
    fields, at = [], 0
    while True:
        at = _behind_spaces(text, at)
        value = ""
        if text[at : at + 1] == '"':
            at += 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    return None
                value += text[at:end]
                at = end + 1
                if text[at : at + 1] != '"':
                    break
                value += '"'
                at += 1
            at = _behind_spaces(text, at)
            if text[at : at + 1] not in (delimiter, ""):
                return None
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
            if "\n" in value:
                return None
        fields.append(value)
        if at >= len(text):
            return fields
        at += 1


def _behind_spaces(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip(" "))
