"""What one process alone may do at a time, for longer than a transaction: a row says whose turn it is, and until when.

Nothing of it is a session's, so it works through a pool of connections, and it ends by itself when its holder has died.
"""

import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.errors import FleetticketsError, HeldByAnother


class Lease:
    """A lease of `ingest.leases`, for `length` from each renewal."""

    def __init__(self, pool: Pool, name: str, length: timedelta) -> None:
        self._pool = pool
        self._parameters: dict[str, Any] = {
            "name": name,
            "holder": f"{platform.node()}, process {os.getpid()} ({secrets.token_hex(4)})",
            "length": length,
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have it; `renew` keeps it.

        Raises: HeldByAnother, DependencyDown.
        """
        self.renew()
        try:
            yield
        finally:
            with suppress(FleetticketsError), database.transaction(self._pool) as connection:  # or its time ends it
                database.rows(connection, "leases", "give_back", self._parameters)

    def renew(self) -> None:
        """Take it, or keep it for another `length`.

        Raises: HeldByAnother, also when its time was over before and somebody else has taken it; DependencyDown.
        """
        with database.transaction(self._pool) as connection:
            if database.row(connection, "leases", "take", self._parameters) is not None:
                return
            held = database.row(connection, "leases", "held", self._parameters)
        name = self._parameters["name"]
        if held is None:  # given back this moment
            raise HeldByAnother(name, "somebody else is at it")
        raise HeldByAnother(
            name,
            f"{held['holder']} is at it since {held['since']:%Y-%m-%d %H:%M:%S %Z}; if that has died, its turn ends at "
            f"{held['until']:%H:%M:%S}",
        )
