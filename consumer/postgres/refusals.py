"""What a server says of who may not come in, also in a language that nobody here reads.

PostgreSQL and PgBouncer say it in words, PostgreSQL in those of its own `lc_messages`; the SQLSTATE beside them libpq
keeps to itself. So where the words say nothing, the server is asked once more, and listened to.
"""

import os
import re
import selectors
from time import monotonic

import psycopg
from psycopg import pq

_NO_DATABASE, _NOT_FROM_HERE, _NOT_THIS_USER = (
    "has no such database",
    "lets this user not in from here: see its pg_hba.conf",
    "refuses this user or password",
)
_WORDS = (
    (re.compile(r'database "[^"]*" does not exist|no such database'), _NO_DATABASE),
    (re.compile(r"no pg_hba\.conf entry"), _NOT_FROM_HERE),
    (
        re.compile(
            r'authentication failed|role "[^"]*" does not exist|no such user|no password supplied'
            r"|not permitted to log in|permission denied for database"
        ),
        _NOT_THIS_USER,
    ),
)
_STATES = {
    "3D000": _NO_DATABASE,
    "28P01": _NOT_THIS_USER,
    "28000": "refuses this user, or lets it not in from here: see its pg_hba.conf",
    "42501": _NOT_THIS_USER,
}
_ANSWER = re.compile(r'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
"""A line of libpq's trace."""


def refusal(error: psycopg.OperationalError, conninfo: str, seconds: float) -> str | None:
    """What the server refuses, by the error of an attempt to connect; None where it is not there for anybody."""
    told = str(error)
    for pattern, meaning in _WORDS:
        if pattern.search(told):
            return meaning
    # Who does not answer would not do so the second time either, and nobody waits twice.
    is_silent = isinstance(error, psycopg.errors.ConnectionTimeout) or isinstance(error.__cause__, OSError)
    return None if is_silent else _STATES.get(_state_told(conninfo, seconds) or "")


def _state_told(conninfo: str, seconds: float) -> str | None:
    """The SQLSTATE that an attempt to connect ends with; None where it ends well, or with none."""
    with os.fdopen(os.memfd_create("libpq"), "r", errors="replace") as heard:
        attempt = pq.PGconn.connect_start(conninfo.encode())
        try:
            attempt.trace(heard.fileno())
            _poll(attempt, monotonic() + seconds)
            attempt.untrace()
        except psycopg.Error:  # a libpq that cannot be listened to; or no socket
            return None
        finally:
            attempt.finish()
        heard.seek(0)
        found = _ANSWER.findall(heard.read())
    return found[-1] if found else None


def _poll(attempt: pq.abc.PGconn, end: float) -> None:
    waits = {int(pq.PollingStatus.READING): selectors.EVENT_READ, int(pq.PollingStatus.WRITING): selectors.EVENT_WRITE}
    while (event := waits.get(attempt.connect_poll())) and (left := end - monotonic()) > 0:
        with selectors.DefaultSelector() as selector:
            selector.register(attempt.socket, event)
            selector.select(left)
