"""Answers that are made once for as long as the data are as they were: by their version, and not by their bytes."""

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from time import monotonic

_LEVEL = 2
_KEPT_BYTES = 64 * 1024 * 1024
_STANDS_TIMES, _STANDS_SECONDS = 10, 2.0
"""For so many times as long as it took to make, and so long at the most, an answer is given without a look; while it is
made anew, for as long again at the most."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer is of: the version of its feed's data, when that was written, and the minute that it was asked in.

    No minute where that does not count.
    """

    version: int
    written_at: datetime | None
    minute: datetime | None


@dataclass(frozen=True, slots=True)
class Body:
    """An answer, packed, of a version, and the tag that it is known by for as long as it is the same."""

    version: int
    tag: str
    packed: bytes
    made_at: float
    stands: float

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.packed)


def tag_of(asked: Hashable, stamp: Stamp) -> str:
    """The ETag of what was asked for: alike in every process, and whether the answer was made yet or not."""
    moments = [moment and moment.astimezone(UTC).isoformat() for moment in (stamp.written_at, stamp.minute)]
    told = hashlib.sha256(repr((asked, moments)).encode()).hexdigest()[:16]
    # A weak one, since the answer is the same whether it is packed or not.
    return f'W/"{stamp.version}-{told}"'


class Bodies:
    """Those made last, so many bytes of them. Safe to share between threads."""

    def __init__(self, most: int = _KEPT_BYTES, now: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._now = now
        self._size = 0
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, Body] = OrderedDict()

    def recent(self, asked: Hashable, *, is_made_anew: bool = False) -> Body | None:
        """The answer if it was made a moment ago: however fast the data change, no question keeps a connection busy."""
        with self._lock:
            body = self._kept.get(asked)
        if body is None:
            return None
        stands = 2 * body.stands if is_made_anew else body.stands
        return body if self._now() < body.made_at + stands else None

    def kept(self, asked: Hashable, tag: str) -> Body | None:
        """The answer with this tag, if it is there."""
        with self._lock:
            body = self._kept.get(asked)
            if body is None or body.tag != tag:
                return None
            self._kept.move_to_end(asked)
            return body

    def keep(self, asked: Hashable, version: int, tag: str, make: Callable[[], str]) -> Body:
        """Make the answer, and keep it."""
        began = self._now()
        packed = gzip.compress(make().encode(), _LEVEL, mtime=0)
        ended = self._now()
        body = Body(version, tag, packed, ended, min(_STANDS_SECONDS, _STANDS_TIMES * (ended - began)))
        with self._lock:
            if (former := self._kept.pop(asked, None)) is not None:
                self._size -= len(former.packed)
            self._kept[asked] = body
            self._size += len(body.packed)
            while self._size > self._most:
                _, oldest = self._kept.popitem(last=False)
                self._size -= len(oldest.packed)
        return body
