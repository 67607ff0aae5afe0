"""What became of dead letters that were sent back to work, as far as somebody can tell. Pure."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from publisher.broker.dead_letters import DeadLetter


class Fate(StrEnum):
    """How a replay ended."""

    APPLIED = "applied"
    FAILED = "failed again"
    NOTHING = "nothing to do"
    UNDECIDED = "undecided"
    """Not ended, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Of one letter, with a few words on it."""

    fate: Fate
    detail: str


class Replays(Protocol):
    """Somebody who knows what becomes of files."""

    def begin(self, letter: DeadLetter) -> bool:
        """Note how its file stands before the letter is sent back; whether it is one that can be told of.

        Raises: FleetticketsError.
        """

    def outcomes(self) -> dict[str, Replayed]:
        """By the ids of the letters that were begun.

        Raises: FleetticketsError.
        """


OpenReplays = Callable[[], AbstractContextManager[Replays | None]]
"""For one command; None where there is nobody to ask. Raises: FleetticketsError."""
