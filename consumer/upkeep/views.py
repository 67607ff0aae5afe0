"""What looking gives and what it is given: frozen models, and ways to reach what may be away."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from consumer.postgres.database import Connection
from publisher.broker.channels import Channel

Connect = Callable[[], AbstractContextManager[Connection]]
"""Opens a connection to the database. Raises FleetticketsError where there is none, and the rest stays readable."""

OpenChannel = Callable[[], AbstractContextManager[Channel]]
"""Opens a channel to the broker. Raises FleetticketsError where there is none, and the rest stays readable."""

Moment = Annotated[datetime, PlainSerializer(datetime.isoformat, when_used="json")]
"""A time with its zone; in JSON as ISO 8601 with the offset in digits."""


class View(BaseModel):
    """What one look found. A column that a statement gives and no field describes is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileNotes(View):
    """What a person has to know of a file, as the ledger has it."""

    model_config = ConfigDict(extra="allow")  # a later program may note more

    renamed: dict[str, str] = Field({}, description="Columns that go by another name: the feed's, and the file's own.")
    missing: list[str] = Field([], description="Columns that the exporter always writes, and did not.")
    undeclared: list[str] = Field([], description="Columns that are kept in raw alone.")
    new: list[str] = Field([], description="Of these, those that no file of the feed had before.")
    twice: list[str] = Field([], description="Columns that are there twice, with the same values.")
    rejects: dict[str, int] = Field({}, description="Of a refused file, how many there were of each kind.")
