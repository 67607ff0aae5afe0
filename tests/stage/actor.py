"""Somebody who does something beside the others, in a thread of his own."""

import threading
from collections.abc import Callable


class Actor(threading.Thread):
    """A thread whose own error is kept for whoever waits for it."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._act = act
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - told by the one who waits
            self.error = error
