"""What is shown to a person: strangers' words, which must not steer a terminal or look like ours. Pure."""

import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar

_EAT = timezone(timedelta(hours=3))
"""As the exporters tell time, and their files' names."""
Named = TypeVar("Named")


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters, half characters and marks of direction spelled out; `lines` keeps its lines."""
    return "".join(char if char.isprintable() or (lines and char == "\n") else repr(char)[1:-1] for char in text)


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(when: datetime, *, milliseconds: bool = False) -> str:
    """As the files tell time, and as servers do: `2026-06-25 14:20:00 EAT (11:20:00 UTC)`."""
    there, here = when.astimezone(_EAT), when.astimezone(UTC)
    clock = "milliseconds" if milliseconds else "seconds"
    day = "" if here.date() == there.date() else f"{here:%Y-%m-%d} "
    told, also = (one.time().isoformat(clock) for one in (there, here))
    return f"{there:%Y-%m-%d} {told} EAT ({day}{also} UTC)"


def fitting(text: str, width: int | None, below: str = "") -> str:
    """The text in lines of so many characters, parted between words: a longer word, such as a key, stays whole.

    All but the first line begin with `below`.
    """
    if width is None or len(text) <= width:
        return text
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return wrapper.fill(text)


def folder_and_name(key: str) -> tuple[str, str]:
    """The folder with its slash, or "" where there is none, and what the key is called in it."""
    folder, slash, name = key.rpartition("/")
    return folder + slash, name


def by_folder(named: Iterable[tuple[str, Named]]) -> dict[str, list[tuple[str, Named]]]:
    """Of each folder its names, each with what goes with its key, in the order in which they come."""
    folders: dict[str, list[tuple[str, Named]]] = {}
    for key, what in named:
        folder, name = folder_and_name(key)
        folders.setdefault(folder, []).append((name, what))
    return folders
