"""What looking gives and what it is given: frozen models, and ways to reach what may be away."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

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
