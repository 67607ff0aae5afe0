"""Messages that the broker has been given and has not answered for yet: a future for each, found by delivery tag."""

import asyncio
from dataclasses import dataclass

from publisher.errors import NotConfirmed

REFUSED = "the broker refused a message (queue full or no quorum)"


@dataclass(slots=True)
class _Waiting:
    future: "asyncio.Future[None]"
    mark: str
    returned: str = ""


class Confirms:
    """The open confirms of one channel, `limit` at most. Each future ends with None or with NotConfirmed.

    A message whose sender gave up waiting still counts, until the broker answers or the channel is gone: that is what
    bounds the memory while a broker stalls.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[int, _Waiting] = {}
        self._marks: dict[str, _Waiting] = {}
        self._last_tag = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def require_room(self) -> None:
        """Raises: NotConfirmed, when as many messages as allowed wait already."""
        if len(self._waiting) >= self._limit:
            raise NotConfirmed("busy", f"{self._limit} messages wait for its confirm already")

    def published(self, mark: str) -> "asyncio.Future[None]":
        """Note the next message of the channel, which no other has the `mark` of; the broker numbers them from 1."""
        self._last_tag += 1
        waiting = _Waiting(asyncio.get_running_loop().create_future(), mark)
        self._waiting[self._last_tag] = self._marks[mark] = waiting
        return waiting.future

    def returned(self, mark: str, reason: str) -> None:
        """Note that no queue takes the message; the broker confirms it nevertheless, right after."""
        if waiting := self._marks.get(mark):
            waiting.returned = reason

    def settle(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """Note the broker's answer for one message, or for all up to `tag`."""
        tags = [waiting for waiting in self._waiting if waiting <= tag] if multiple else [tag]
        for settled in tags:
            waiting = self._waiting.pop(settled, None)
            if waiting is None:
                continue
            del self._marks[waiting.mark]
            if waiting.returned:
                _fail(waiting, NotConfirmed("unroutable", waiting.returned))
            elif not taken:
                _fail(waiting, NotConfirmed("nacked", REFUSED))
            elif not waiting.future.done():
                waiting.future.set_result(None)

    def lose(self, detail: str) -> None:
        """End every wait: the channel is gone, and with it the answers."""
        for waiting in self._waiting.values():
            _fail(waiting, NotConfirmed("away", detail))
        self._waiting.clear()
        self._marks.clear()


def _fail(waiting: _Waiting, error: NotConfirmed) -> None:
    # Its sender may have given up waiting.
    if not waiting.future.done():
        waiting.future.set_exception(error)
