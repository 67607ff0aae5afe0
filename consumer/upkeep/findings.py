"""What an examination gives: findings of one line each, and the settings that it was made with."""

from enum import StrEnum
from typing import Self

from pydantic import Field

from consumer.upkeep.views import View
from publisher.arrivals.messages import SeenBy


class Level(StrEnum):
    """How a finding counts: only what is wrong makes the whole unfit."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


class Finding(View):
    """One line: what was looked at, what was found, and what to do unless it is fine."""

    about: str = Field(description="The dependency, or the part of it, that was looked at.")
    level: Level
    found: str = Field(description="A version, a state, or what is wrong, for a person.")
    do: str = Field("", description="What to do; empty where all is fine.")

    @classmethod
    def ok(cls, about: str, found: str) -> Self:
        return cls(about=about, level=Level.OK, found=found)

    @classmethod
    def note(cls, about: str, found: str, do: str) -> Self:
        return cls(about=about, level=Level.NOTE, found=found, do=do)

    @classmethod
    def wrong(cls, about: str, found: str, do: str) -> Self:
        return cls(about=about, level=Level.WRONG, found=found, do=do)


class Origin(StrEnum):
    """Where a setting has its value from."""

    ENVIRONMENT = "environment"
    FILE = ".env"
    DEFAULT = "default"
    NOWHERE = "not set"


class Effective(View):
    """A setting as it is in force."""

    name: str
    value: str | None = Field(description="With *** for what is secret; null for none, and for one that is refused.")
    origin: Origin


class Journey(View):
    """How long the canary of one feed took for each stage that it came to, in milliseconds from the one before."""

    feed: str
    seen_by: SeenBy | None = Field(description="Who told a consumer of it; null where none has taken it.")
    milliseconds: dict[str, float] = Field(
        description="stored, announced (to the broker, by event or poller; not where that cannot be heard), delivered "
        "(to a consumer), read, applied, archived, removed."
    )
    trouble: str | None = Field(description="Why it could not be applied.")

    @property
    def is_whole(self) -> bool:
        return "removed" in self.milliseconds and self.trouble is None


class Examination(View):
    """What was found of every dependency, and with what settings."""

    findings: list[Finding] = Field(description="As looked at: settings, database, broker, store, who works, geocoder.")
    settings: list[Effective]
    journeys: list[Journey] = Field([], description="Of the canaries that were sent, one for each feed.")

    @property
    def is_fit(self) -> bool:
        """Whether nothing is wrong; notes are no harm."""
        return all(finding.level is not Level.WRONG for finding in self.findings)
