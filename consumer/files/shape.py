"""What a row of a file looks like: so many fields, and an id where it belongs, of a form that ids there have. Pure."""

import re
from collections.abc import Sequence

from consumer.feeds.feed import Feed
from consumer.feeds.folding import folded_name, mended_id
from consumer.files.header import Header, known_columns

MAX_ID_CHARS = 200
_FORMS = 50
"""With more forms of ids than this, a form tells nothing."""
_TELLING_CHARS, _TELLING_WIDTH = 4, 8
"""A text with a digit and no space is an id of a new form if it has so many characters, or its row so many fields."""
_LETTERS, _DIGITS = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
_VALUE = re.compile(r"(?=[^\d]*\d)[-+:.TZ\s\d]+", re.ASCII)
"""A number or a date, as no column is called."""
_NEW_FORM = re.compile(r"(?=.*9)[a9]+(?:[-_/.:#]+[a9]+)*", re.ASCII)
_PATTERN = str.maketrans(
    dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "a") | dict.fromkeys("0123456789", "9")
)
_ALIKE = str.maketrans("9", "a")
"""Makes a pattern a skeleton: one of ids whose letters and digits are mixed, as a UUID's are."""


class Shape:
    """Of the rows of one header. It learns the forms of ids from rows that are beyond doubt."""

    def __init__(self, header: Header, feed: Feed) -> None:
        self._header = header
        self._sentinel = feed.sentinel
        self._nothing = frozenset(feed.nothing)
        self._id = folded_name(feed.id)
        self._has_unnamed = header.least < header.width
        self._names = [folded_name(name) for name in header.written]
        self._known = known_columns(feed).keys() | set(self._names)
        self.id_place = header.id_place
        self._patterns: set[str] = set()
        self._skeletons: set[str] = set()
        self._forms: set[str] = set()

    def fitted(self, fields: list[str]) -> list[str] | None:
        """As many fields as there are names; None where that would need one more, or leave out a value."""
        header, count = self._header, len(fields)
        if count == header.width and not self._has_unnamed:
            return fields
        if self._has_unnamed and any(fields[header.least :]) and self.has_names(fields):
            return None
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

    def learns(self, fields: Sequence[str]) -> bool:
        """Whether a row's id is one, or may be one, which is learnt; False where the row is to be looked at closely."""
        text = fields[self._header.id_place]
        pattern = text.translate(_PATTERN)
        if pattern in self._patterns or ("9" in pattern and pattern.translate(_ALIKE) in self._skeletons):
            return True
        if self.is_header(fields) or self.is_lone_text(fields) or self.has_names_alone(fields):
            return False
        self.learn(text)
        return True

    def is_lone_text(self, fields: Sequence[str]) -> bool:
        """Whether nothing is there but words where the id belongs, as no id here is: the rest of another text."""
        text = self.id_of(fields).strip()
        is_lone = text and sum(1 for field in fields if field.strip()) == 1
        is_text = len(text.split()) > 1 or not any(map(str.isdigit, text))
        return bool(is_lone and is_text and self._forms) and not self.knows(text, "")

    def learn(self, text: str) -> None:
        form = _form(text)
        is_none = text.strip() in self._nothing or (self._sentinel and text.lstrip().startswith(self._sentinel))
        if form and len(self._forms) <= _FORMS and not is_none:
            self._forms.add(form)
            pattern = text.translate(_PATTERN)
            if "9" in pattern:  # a name of a column is not to be taken for an id that was seen
                self._patterns.add(pattern)
                self._skeletons.add(_skeleton(text))

    def is_row(self, fields: list[str], beside: str = "") -> bool:
        """Whether it is one beyond doubt; `beside` is an id that is one by its place, if not by its row."""
        fitted = self.fitted(fields)
        if fitted is None:
            return self.is_sentinel(fields) or self.is_header(fields)
        text = fitted[self._header.id_place]
        return self._is_id(text, beside) or self.is_new_id(text) or self.is_sentinel(fitted) or self.is_header(fitted)

    def begins_row(self, fields: Sequence[str], beside: str = "") -> bool:
        """Whether it does, however many of its last fields it leaves out."""
        has_id = len(fields) > self._header.id_place and self._is_id(fields[self._header.id_place], beside)
        return has_id or self.is_sentinel(fields) or self.is_header(fields)

    def is_short(self, fields: Sequence[str]) -> bool:
        return len(fields) < self._header.least

    def is_short_row(self, fields: Sequence[str], *, is_behind_row: bool, beside: str = "") -> bool:
        """Whether it may be a row whose last columns are left out, as far as that can be told from it alone.

        One that `is_behind_row` is the rest of no other, so its id may be of another form than those before.
        """
        place = self._header.id_place
        has_more = sum(1 for field in fields if field.strip()) > 1
        is_short = place < len(fields) < self._header.least
        if not is_short or not has_more:
            return False
        return self._is_id(fields[place], beside) or (is_behind_row and self.is_new_id(fields[place]))

    def has_most(self, fields: Sequence[str], beside: str) -> bool:
        """Whether it is most of a row, by its width and an id of a form that is known."""
        id_place = self._header.id_place
        is_wide = len(fields) > id_place and 2 * len(fields) > self._header.least
        return is_wide and self.knows(fields[id_place], beside)

    def is_whole(self, fields: Sequence[str]) -> bool:
        """Whether it has more of a row's fields than not, and an id that may be spoilt."""
        text = self.id_of(fields).strip()
        is_one = not text or text in self._nothing or (any(map(str.isdigit, text)) and not any(map(str.isspace, text)))
        return 2 * len(fields) > self._header.least and is_one

    def is_too_wide(self, fields: Sequence[str]) -> bool:
        return any(map(str.strip, fields[self._header.least :]))

    def is_wide_row(self, fields: Sequence[str]) -> bool:
        """Whether it has half of a row's fields, and what may be an id among them."""
        return 2 * len(fields) >= self._header.least and self.is_new_id(self.id_of(fields))

    def knows(self, text: str, beside: str) -> bool:
        """Whether ids of its form are there."""
        form = _form(text)
        # Of letters alone, a skeleton would be any word of that length.
        has_skeleton = "9" in form and self._has_skeleton(text, beside)
        return bool(form) and (form in self._forms or form == _form(beside) or has_skeleton)

    def id_of(self, fields: Sequence[str]) -> str:
        """What stands where the id belongs; "" for nothing."""
        return fields[self._header.id_place] if len(fields) > self._header.id_place else ""

    def is_sentinel(self, fields: Sequence[str]) -> bool:
        """Whether it is what the exporter writes in the place of a row."""
        if not self._sentinel:
            return False
        places = {0, self._header.id_place}
        return any(at < len(fields) and fields[at].lstrip().startswith(self._sentinel) for at in places)

    def is_header(self, fields: Sequence[str]) -> bool:
        """Whether it names columns, however its quotes are: the id's, and more of the others than not."""
        folded = [name for name in (folded_name(field.replace('"', "")) for field in fields) if name]
        if self._id not in folded or self._is_glued(fields):
            return False
        if self._is_id(self.id_of(fields)) or any(map(_VALUE.fullmatch, fields)):
            return False
        return 2 * sum(name in self._known for name in folded) > len(folded)

    def has_names_alone(self, fields: Sequence[str]) -> bool:
        """Whether it names columns, but not the id's."""
        folded = [name for name in map(folded_name, fields) if name]
        count = sum(name in self._known for name in folded)
        return self._id not in folded and count > 1 and 2 * count > len(folded)

    def is_same_header(self, fields: Sequence[str]) -> bool:
        return [folded_name(name) for name in fields] == self._names

    def unglued(self, fields: list[str], raw: str) -> list[str] | None:
        """The row before a header that follows on its own line, where that is this file's header once more."""
        more = self._glued_at(fields)
        if more is None:
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

    def _is_glued(self, fields: Sequence[str]) -> bool:
        """Whether a name stands behind the value of an id, or this file's header behind values."""
        text = folded_name(self.id_of(fields))
        has_id = text not in self._known and any(map(str.isdigit, text))
        if has_id and self.is_new_id(self.id_of(fields)) and not all(map(str.strip, fields)):
            return True  # an id, and nothing in between: no header is so
        return self._glued_at(fields) is not None or (has_id and any(map(text.endswith, self._known - {""})))

    def _glued_at(self, fields: Sequence[str]) -> int | None:
        """Where this file's header begins behind values; None where it does not."""
        more = len(fields) - len(self._names)
        if more < 1 or len(self._names) == 1:
            return None
        is_there = [folded_name(name) for name in fields[more + 1 :]] == self._names[1:]
        if not is_there or not folded_name(fields[more]).endswith(self._names[0]):
            return None
        # Another header may have a column more in front.
        is_behind_id = more >= self._header.id_place and any(map(str.isdigit, self.id_of(fields)))
        return more if is_behind_id or more >= self._header.least - 1 else None

    def has_names(self, fields: Sequence[str]) -> bool:
        """Whether there are names of columns behind its values, the id's among them."""
        folded = [folded_name(value) for value in fields[self._header.id_place + 1 :]]
        is_glued = any(name.endswith(self._id) for name in folded)
        return is_glued and sum(name in self._known for name in folded) > 1

    def has_other_names(self, line: str, delimiter: str) -> bool:
        """Whether a line that cannot be read names columns, if only at its end, and others than this header's."""
        fields = line.replace('"', "").split(delimiter)
        if not self.is_header(fields) and not self.has_names(fields):
            return False
        return [folded_name(name) for name in fields][1 - len(self._names) :] != self._names[1:]

    def _is_id(self, text: str, beside: str = "") -> bool:
        if text.translate(_PATTERN) in self._patterns:
            return True
        form = _form(text)
        if not form:
            return False
        known = {*self._forms, _form(beside)} - {""}
        if known and len(self._forms) <= _FORMS:
            return form in known or ("9" in form and self._has_skeleton(text, beside))
        return "9" in form and not any(map(str.isspace, form))

    def _has_skeleton(self, text: str, beside: str) -> bool:
        skeleton = _skeleton(text)
        return skeleton in self._skeletons or skeleton == _skeleton(beside)

    def is_new_id(self, text: str) -> bool:
        """Whether a row of the right width may have an id of another form than those before."""
        is_long = len(text.strip()) >= _TELLING_CHARS or self._header.width >= _TELLING_WIDTH
        return is_long and _NEW_FORM.fullmatch(_form(text)) is not None


def _form(text: str) -> str:
    """Letters and digits of an id each as one, whatever their number: INC-480012 is `a-9`; "" for what can be none."""
    return _LETTERS.sub("a", _DIGITS.sub("9", _mended(text)))


def _skeleton(text: str) -> str:
    """Each letter and each digit as an `a`; "" for what can be no id."""
    return _mended(text).translate(_PATTERN).translate(_ALIKE)


def _mended(text: str) -> str:
    mended, fault = mended_id(text.strip())
    return "" if fault or len(mended) > MAX_ID_CHARS else mended


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
