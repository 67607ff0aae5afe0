"""Which texts are one and the same although they are spelt differently: ids, names of places, names of columns. Pure.

What cannot be seen is taken out, and what a spreadsheet put around a text; nothing else is changed. What a text was
before it was rewritten cannot be known, and is said instead.
"""

import re
import unicodedata

_PLAIN_ID = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_/.:#][A-Za-z0-9]+)*", re.ASCII)
"""Ids that need no closer look; most of all feeds are such."""
_PLAIN_TEXT = re.compile(r"(?![='])[!#-~]+(?: [!#-~]+)*", re.ASCII)
_REWRITTEN = re.compile(
    r"[+-]?\d+(?:[.,]\d+)?[eE][+-]\d{1,3}|[+-]?\d+[.,]\d+[eE]\d{1,3}|[+-]?\d+(?:[.,]\d{3})*(?:[.,]0+|\.)", re.ASCII
)
"""1.23E+11, which Java writes 1.23E11, was one of many numbers; 70412.0, or 70412,0, was perhaps 70412, perhaps not."""
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""What shows nothing, or only says how others are to be shown, and is of no category of its own for that."""
_HYPHENS = str.maketrans("\u2010\u2011", "--")
_WRAPPED = re.compile(r"""=?"([^"]*)"|'([^']*)'?""")
"""`="00118"`, as exporters write it to keep a spreadsheet from reading a number; '00118, as a spreadsheet keeps it."""
_NAME_JOINTS = re.compile(r"[\s_-]+")


def folded_name(name: str) -> str:
    """What a column's name is compared by: `Closed At`, `closed-at` and `CLOSED_AT` are one."""
    if name.isascii() and name.isprintable():
        return name.replace(" ", "").replace("_", "").replace("-", "").lower()
    if not name.isascii():
        name = _visible(unicodedata.normalize("NFKC", name)).translate(_HYPHENS)
    return _NAME_JOINTS.sub("", "".join(char for char in name if char >= " ")).casefold()


def mended_id(text: str) -> tuple[str, str | None]:
    """The id that is meant, and what is wrong with it; an id that is clean stays as it is."""
    if _PLAIN_ID.fullmatch(text):
        return text, None
    mended = _unwrapped(_visible(unicodedata.normalize("NFC", text)).translate(_HYPHENS))
    for char in mended:
        if unicodedata.category(char) in {"Cc", "Zl", "Zp"}:
            what = "a line break" if char in "\n\r\u2028\u2029\x85" else f"a control character, U+{ord(char):04X},"
            return mended, f"has {what} in it"
    mended = " ".join(mended.split())
    if '"' in mended:
        return mended, "has a quote in it"
    if mended and not any(map(str.isalnum, mended)):
        return mended, "has neither a letter nor a digit in it"
    if _REWRITTEN.fullmatch(mended):
        return mended, "looks like a number that a spreadsheet rewrote; export the column as text"
    return mended, None


def mended_place(text: str) -> str:
    """A name of a place without what cannot be seen: a no-break space makes no other cluster."""
    if _PLAIN_TEXT.fullmatch(text):
        return text
    visible = _visible(unicodedata.normalize("NFC", text)).translate(_HYPHENS)
    return " ".join(_unwrapped("".join(max(char, " ") for char in visible)).split())


def _visible(text: str) -> str:
    """Without characters that only say how others are to be shown."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", "".join(char for char in text if unicodedata.category(char) != "Cf"))


def _unwrapped(text: str) -> str:
    text = text.strip()
    while wrapped := _WRAPPED.fullmatch(text):
        text = (wrapped[1] if wrapped[1] is not None else wrapped[2]).strip()
    return text
