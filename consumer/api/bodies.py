"""Answers that are made once for as long as the data are as they were: by their version, and not by their bytes."""

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

_LEVEL = 5
_KEPT_BYTES = 64 * 1024 * 1024
_MAKERS = 64
"""Of two questions that happen to share one, the second waits for the first."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer is of: the version of its feed's data, and the minute that it was asked for in, if that counts."""

    version: int
    minute: datetime | None


@dataclass(frozen=True, slots=True)
class Body:
    """An answer, packed, and the tag that it is known by for as long as it is the same."""

    tag: str
    packed: bytes

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.packed)


def tag_of(asked: Hashable, stamp: Stamp) -> str:
    """The ETag of what was asked for: alike in every process, and whether the answer was made yet or not."""
    told = hashlib.sha256(repr((asked, stamp.minute and stamp.minute.isoformat())).encode()).hexdigest()[:16]
    # A weak one, since the answer is the same whether it is packed or not.
    return f'W/"{stamp.version}-{told}"'


class Bodies:
    """Those made last, so many bytes of them. Safe to share between threads."""

    def __init__(self, most: int = _KEPT_BYTES) -> None:
        self._most = most
        self._size = 0
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, Body] = OrderedDict()
        self._makers = [Lock() for _ in range(_MAKERS)]

    def making(self, asked: Hashable) -> Lock:
        """Held by whoever makes the answer, so that others find it kept when they have waited."""
        return self._makers[hash(asked) % _MAKERS]

    def kept(self, asked: Hashable, tag: str) -> Body | None:
        """The answer with this tag, if it is there."""
        with self._lock:
            body = self._kept.get(asked)
            if body is None or body.tag != tag:
                return None
            self._kept.move_to_end(asked)
            return body

    def keep(self, asked: Hashable, tag: str, text: str) -> Body:
        body = Body(tag, gzip.compress(text.encode(), _LEVEL, mtime=0))
        with self._lock:
            if (former := self._kept.pop(asked, None)) is not None:
                self._size -= len(former.packed)
            self._kept[asked] = body
            self._size += len(body.packed)
            while self._size > self._most:
                _, oldest = self._kept.popitem(last=False)
                self._size -= len(oldest.packed)
        return body
