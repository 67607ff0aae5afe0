"""What a row of a file looks like: so many fields, an id where it belongs, and no names of columns. Pure.

A row is believed by a strict look, and doubted by a loose one: what may be a row, or may name columns, is never taken
for a part of something else.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto

from consumer.feeds.feed import Feed
from consumer.feeds.folding import folded_name
from consumer.files.header import MAX_COLUMNS, MAX_HEADER_BYTES, Header, known_columns
from consumer.files.ids import Ids

_VALUE = re.compile(r"(?=[^\d]*\d)[-+:.TZ\s\d]+", re.ASCII)
"""A number or a date, as no column is called."""
_MOST_NAME_CHARS = 60


class Naming(Enum):
    """In which way a line names columns."""

    NOT = auto()
    HEADER = auto()
    BEHIND_VALUES = auto()
    """As a header that follows a row without a line end between them, or one that cannot be told from that."""
    WITHOUT_ID = auto()


class Shape:
    """Of the rows of one header."""

    def __init__(self, header: Header, feed: Feed, ids: Ids) -> None:
        self._header = header
        self._sentinel = feed.sentinel
        self._ids = ids
        self._id = folded_name(feed.id)
        self._id_as_written = header.written[header.id_place]
        self._names = [folded_name(name) for name in header.written]
        self._known = (known_columns(feed).keys() | set(self._names)) - {""}
        self._has_unnamed = header.least < header.width
        self.id_place = header.id_place

    def fitted(self, fields: list[str]) -> list[str] | None:
        """As many fields as there are names; None where that would need one more, or leave out a value."""
        header, count = self._header, len(fields)
        if count == header.width:
            return fields
        if count > header.width:
            return None if any(map(str.strip, fields[header.width :])) else fields[: header.width]
        return self.filled(fields) if count >= header.least else None

    def filled(self, fields: list[str]) -> list[str]:
        """The same with empty ones for those that were left out at the end."""
        return fields + [""] * (self._header.width - len(fields))

    def misfit(self, fields: Sequence[str]) -> str:
        return f"has {_counted(len(fields), 'field')} where the header has {len(self._names)}"

    def is_short(self, fields: Sequence[str]) -> bool:
        return len(fields) < self._header.least

    def has_half(self, fields: Sequence[str]) -> bool:
        return 2 * len(fields) > self._header.least

    def is_too_wide(self, fields: Sequence[str]) -> bool:
        return any(map(str.strip, fields[self._header.least :]))

    def id_of(self, fields: Sequence[str]) -> str:
        """What stands where the id belongs; "" for nothing."""
        return fields[self.id_place] if len(fields) > self.id_place else ""

    def is_plain(self, fields: Sequence[str], raw: str) -> bool:
        """Whether it is a row with all fields, an id of a form that is known, and no names behind it."""
        header = self._header
        if len(fields) != header.width or not self._ids.knows_at_sight(fields[header.id_place]):
            return False
        if self._id_as_written in raw:
            return False
        last = fields[header.least - 1]
        if last[-1:].isalpha() and len(last) < _MOST_NAME_CHARS and folded_name(last) in self._known:
            return False
        return not self._has_unnamed or not any(fields[header.least :])

    def is_row(self, fields: Sequence[str], beside: str) -> bool:
        """Whether one of the right width is a row beyond doubt; `beside` is an id by its place, if not by its row."""
        return self._ids.may_be(self.id_of(fields), beside)

    def is_short_row(self, fields: Sequence[str], beside: str = "", *, is_open: bool) -> bool:
        """Whether it may be one whose last columns are left out, as far as that can be told from it alone.

        One behind a row that cannot be read (`is_open`) may be the rest of that, so it has to have more to say for it.
        """
        has_more = sum(1 for field in fields if field.strip()) > 1
        if not self.id_place < len(fields) < self._header.least or not has_more:
            return False
        text = self.id_of(fields)
        return self._ids.knows(text, beside) or (
            (not is_open or self.has_half(fields)) and self._ids.is_new(text, beside)
        )

    def begins_row(self, fields: Sequence[str], beside: str) -> bool:
        """Whether it does beyond doubt, however many of its last fields it leaves out."""
        return len(fields) > self.id_place and self._ids.knows(self.id_of(fields), beside)

    def may_be_row(self, fields: list[str], beside: str, *, is_next: bool) -> bool:
        """Whether it is one by itself, rather than a line of a text; `is_next` behind another one that is whole."""
        text = self.id_of(fields)
        if len(fields) <= max(self.id_place, 1):
            return self.fitted(fields) is not None and self._ids.may_be(text, beside)
        if self._ids.knows(text, beside):
            return is_next or self.has_half(fields)
        return self._ids.is_new(text, beside) and self.fitted(fields) is not None

    def may_be_spoilt_row(self, fields: list[str]) -> bool:
        """Whether it has the width of a row, and what may have been an id; nothing at all is in many a text."""
        text = self.id_of(fields).strip()
        return bool(text) and len(fields) > 1 and self.fitted(fields) is not None and self._ids.is_spoilt(text)

    def may_be_row_apart(self, fields: Sequence[str]) -> bool:
        """Whether it may be one, or its beginning, behind a line that is one by itself: few texts begin as both."""
        return len(fields) > 1 and bool(self.id_of(fields).strip()) and self.may_be_whole(fields)

    def may_be_row_without_id(self, fields: list[str]) -> bool:
        """Whether it has the width of a row, and nothing where the id belongs."""
        return self.fitted(fields) is not None and self._ids.is_nothing(self.id_of(fields))

    def is_row_but_id(self, fields: list[str]) -> bool:
        """Whether it has all else of a row: nothing where the id belongs, and something behind it."""
        return self.may_be_row_without_id(fields) and any(map(str.strip, fields[self.id_place + 1 :]))

    def may_be_whole(self, fields: Sequence[str]) -> bool:
        """Whether it has more of a row's fields than not, and an id that may be lost."""
        return self.has_half(fields) and self._ids.is_spoilt(self.id_of(fields))

    def may_have_id(self, fields: Sequence[str]) -> bool:
        return len(fields) > max(self.id_place, 1) and self._ids.may_be(self.id_of(fields))

    def is_lone_text(self, fields: Sequence[str]) -> bool:
        """Whether nothing is there but words where the id belongs, as no id here is: the rest of another text.

        Where the id is the only column, a row has nothing else, and the first one may be any.
        """
        text = self.id_of(fields).strip()
        is_lone = text and sum(1 for field in fields if field.strip()) == 1
        is_text = len(text.split()) > 1 or not any(map(str.isdigit, text))
        has_others = self._header.least > 1 or self._ids.has_any()
        return bool(is_lone and is_text and has_others) and not self._ids.knows(text)

    def is_sentinel(self, fields: Sequence[str]) -> bool:
        """Whether it is what the exporter writes in the place of a row."""
        if not self._sentinel:
            return False
        places = {0, self.id_place}
        return any(at < len(fields) and fields[at].lstrip().startswith(self._sentinel) for at in places)

    def naming(self, fields: Sequence[str], *, is_lost: bool = False) -> Naming:
        """In which way a line names columns, however its quotes are; `is_lost` behind a row that cannot be read."""
        if not min(2, len(self._names)) <= len(fields) <= 2 * MAX_COLUMNS:
            return Naming.NOT
        # The end of a long one is enough: a name that is glued to a value stands there.
        folded = [folded_name(field[-MAX_HEADER_BYTES:].replace('"', "")) for field in fields]
        count = sum(name in self._known for name in folded)
        is_behind = self._has_id_behind_value(folded)
        if count + is_behind < min(2, len(self._names)):
            return Naming.NOT
        has_id, is_most = self._id in folded, 2 * count > sum(map(bool, folded))
        if has_id and is_most and self._is_header(fields, folded, is_lost=is_lost):
            return Naming.HEADER
        if len(folded) > 1 and (has_id or is_behind):
            return Naming.BEHIND_VALUES
        return Naming.WITHOUT_ID if is_most and count > 1 and not self._ids.knows(self.id_of(fields)) else Naming.NOT

    def _is_header(self, fields: Sequence[str], folded: Sequence[str], *, is_lost: bool) -> bool:
        """Whether nothing in it is a value: a header begins with a name, or has none for the first column alone."""
        if folded == self._names:
            return True
        if self._ids.knows(self.id_of(fields)) or any(map(_VALUE.fullmatch, fields)):
            return False
        if folded[0] in self._known or (not folded[0] and folded[1] in self._known):
            return True
        # A name that nobody knows is a word, without another name at its end, and not in front of this header again.
        begin = next(at for at, name in enumerate(folded) if name in self._known)
        are_words = all(name and not any(map(str.isdigit, name)) for name in folded[:begin])
        is_behind = folded[begin:] == self._names or any(map(folded[begin - 1].endswith, self._known))
        return are_words and not (is_lost or is_behind or self._ids.is_spoilt(self.id_of(fields)))

    def _has_id_behind_value(self, folded: Sequence[str]) -> bool:
        """Whether the id's name follows a value without anything between them, and other names that."""
        values = (at for at, name in enumerate(folded) if name.endswith(self._id) and name not in self._known)
        return any(any(name in self._known for name in folded[at + 1 :]) for at in values)

    def is_same_header(self, fields: Sequence[str]) -> bool:
        return [folded_name(field.replace('"', "")) for field in fields] == self._names

    def unglued(self, fields: list[str], raw: str) -> list[str] | None:
        """The row before a header that follows on its own line, where that is this file's header once more."""
        more = len(fields) - len(self._names)
        is_there = [folded_name(name) for name in fields[more + 1 :]] == self._names[1:]
        is_marked = any("\ufeff" in field for field in fields[:more])  # a column before this header's first one
        if more < 1 or not is_there or is_marked:
            return None
        name = self._header.written[0]
        joined = fields[more].replace("\ufeff", "")
        last = joined.removesuffix(name)
        if f'""{name}"' in raw:  # both were in quotes, which one reads as a quote in a text
            last = last.removesuffix('"')
        if last == joined and folded_name(joined) != self._names[0]:
            return None
        if last == joined or not last.strip():
            return self.fitted(fields[:more]) or self.fitted([*fields[:more], ""])
        return self.fitted([*fields[:more], last])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
