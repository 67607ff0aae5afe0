"""What ids of a file look like. It is learnt from its rows, so that a row can be told from the rest of a text. Pure."""

import re
from functools import lru_cache

from consumer.feeds.feed import Feed
from consumer.feeds.folding import mended_id

MAX_ID_CHARS = 200
_MOST_CHARS = 2 * MAX_ID_CHARS
"""Of an id with what is around it that mending takes off."""
_MOST_FORMS = 50
"""With more forms of ids than this, a form tells nothing."""
_TELLING_CHARS = 4
"""From so many characters on, a text with a digit and no space may be an id of a form that was not there yet."""
_LETTERS, _DIGITS = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
_NEW_FORM = re.compile(r"(?=.*9)[a9]+(?:[-_/.:#]+[a9]+)*", re.ASCII)
_VALUE = re.compile(r"\d{4}([-/.])\d\d?\1\d\d?(?:[T ].*)?|\d\d?:\d\d.*|\d+[.,]\d+", re.ASCII)
"""A date, a time or a number, which the rest of a row has there more often than a row an id."""
_PATTERN = str.maketrans(
    dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "a") | dict.fromkeys("0123456789", "9")
)
_ALIKE = str.maketrans("9", "a")
"""Makes a pattern a skeleton: one of ids whose letters and digits are mixed, as a UUID's are."""


class Ids:
    """The forms of a file's ids so far."""

    def __init__(self, feed: Feed) -> None:
        self._sentinel = feed.sentinel
        self._nothing = frozenset(feed.nothing)
        self._forms: set[str] = set()
        self._patterns: set[str] = set()
        self._skeletons: set[str] = set()

    def knows_at_sight(self, text: str) -> bool:
        pattern = text.translate(_PATTERN)
        return pattern in self._patterns or ("9" in pattern and pattern.translate(_ALIKE) in self._skeletons)

    def learn(self, text: str) -> None:
        """From a row that is beyond doubt."""
        form = _form(text)
        is_none = self.is_nothing(text) or (self._sentinel and text.lstrip().startswith(self._sentinel))
        # Letters alone are any word, unless all ids here are such.
        if not form or is_none or len(self._forms) > _MOST_FORMS or ("9" not in form and self._forms):
            return
        self._forms.add(form)
        if "9" in form:
            self._patterns.add(text.translate(_PATTERN))
            self._skeletons.add(_skeleton(text))

    def has_any(self) -> bool:
        """Whether one was seen."""
        return bool(self._forms)

    def knows(self, text: str, beside: str = "") -> bool:
        """Whether ids of its form are there, or `beside` it."""
        form = _form(text)
        if not form or len(self._forms) > _MOST_FORMS:
            return "9" in form and not any(map(str.isspace, form))
        if form == "9" and len(text.strip()) < _TELLING_CHARS:
            return text.translate(_PATTERN) in self._patterns  # any column may have a number
        if form in self._forms or form == _form(beside):
            return True
        # Of letters alone, a skeleton would be any word of that length.
        return "9" in form and _skeleton(text) in {*self._skeletons, _skeleton(beside)}

    def is_new(self, text: str, beside: str = "") -> bool:
        """Whether it may be one of a form that was not there yet."""
        form = _form(text)
        if "9" not in form or any(map(str.isspace, form)) or _VALUE.fullmatch(text.strip()):
            return False
        has_others = bool(self._forms or beside)
        return not has_others or (len(text.strip()) >= _TELLING_CHARS and _NEW_FORM.fullmatch(form) is not None)

    def may_be(self, text: str, beside: str = "") -> bool:
        return self.knows(text, beside) or self.is_new(text, beside)

    def may_begin(self, line: str) -> bool:
        """Whether a line may be the beginning of an id that has a line break in it, in quotes or not."""
        word = line.strip(' "')
        is_one = len(word.split()) == 1 and not _VALUE.fullmatch(word)
        return is_one and (line.lstrip()[:1] == '"' or any(map(str.isdigit, word)))

    def may_end(self, text: str, begun: str, beside: str = "") -> bool:
        """Whether it may be the rest of an id that has a line break behind what is `begun`."""
        if self.knows_at_sight(text) or not self.may_be(begun + text, beside):
            return False
        return self.knows_at_sight(begun + text) or not self.knows(text, "" if beside.strip() == begun else beside)

    def is_nothing(self, text: str) -> bool:
        return not text.strip() or text.strip() in self._nothing

    def is_spoilt(self, text: str) -> bool:
        """Whether it may stand where an id was, which nobody knows any more."""
        text = text.strip()
        return self.is_nothing(text) or (any(map(str.isdigit, text)) and not any(map(str.isspace, text)))


def _form(text: str) -> str:
    """Letters and digits of an id each as one, whatever their number: INC-480012 is `a-9`; "" for what can be none."""
    mended = _mended(text)
    return _form_of(mended) if mended else ""


@lru_cache(maxsize=1024)
def _form_of(mended: str) -> str:
    return _LETTERS.sub("a", _DIGITS.sub("9", mended))


def _skeleton(text: str) -> str:
    """Each letter and each digit as an `a`; "" for what can be no id."""
    return _mended(text).translate(_PATTERN).translate(_ALIKE)


def _mended(text: str) -> str:
    text = text.strip()
    return _mended_short(text) if len(text) <= _MOST_CHARS else ""


@lru_cache(maxsize=1024)
def _mended_short(text: str) -> str:
    # A line is asked about several times, and its readings are mostly alike.
    mended, fault = mended_id(text)
    return "" if fault or len(mended) > MAX_ID_CHARS else mended
