"""Postgres behind psycopg: a pool of connections that are ready to stage files, and errors in our words."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from consumer.feeds.feed import Feed
from consumer.postgres import refusals
from consumer.postgres.queries import of_feed, statements
from consumer.settings import DatabaseSettings
from publisher import tls
from publisher.errors import (
    DatabaseDown,
    LockTimeout,
    LoginRefused,
    Misconfigured,
    Permanent,
    StatementFailed,
    StatementRefused,
)

DATABASE = "postgres"
_CONNECT_SECONDS = 10
_PASSING = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE that say something of the server, not of what it was asked."""
_OWN_FAULTS = frozenset({psycopg.errors.QueryCanceled.sqlstate, psycopg.errors.ConfigurationLimitExceeded.sqlstate})
"""Within them, limits that what was asked goes beyond: of time, and of temporary files."""
_LOCK_SECONDS = 10
"""For a lock: whoever has to wait longer puts its work aside, and says who may have the lock."""
_PART_OF_PATIENCE = 0.6
"""For a connection, or for a lock: what is left is for saying who has it."""
_DATA = "22"
"""The class of SQLSTATE for values: out of range, with a NUL, no time that there is. What brought them is at fault."""

_NETWORK = {
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 5,
    "tcp_user_timeout": 45_000,
}
"""Seconds, and milliseconds: a network that swallows everything shows as a lost connection within a minute, also to
somebody who waits for the answer to a COMMIT. No limit for a statement would do: a file of a gigabyte takes minutes."""

_COMMIT_SECONDS = 60
"""A COMMIT is short after the largest file, so this one statement has a limit. It is for what keepalives cannot see: a
proxy on the way that lives on, and whose other side is gone. The caller asks the ledger what became of it."""

_COMMITS_LOOKED_AT_SECONDS = 5

_PREPARED_FROM, _AS_A_RULE = 1, 5
_PREPARED_MOST = 500
"""Where files are applied a statement is prepared at its second run on a connection, since there are few of them and to
plan one anew takes longer than to run it; psycopg forgets all of them at each ROLLBACK. Most feeds have some of their
own. Where each is planned for what it is given, to prepare it only costs a round trip."""

_FRESH_SECONDS = 1
"""Whoever has a connection again so soon finds out for himself if it was lost, as he would a moment after a look."""

_LOOKS_AT_POOLER = 5
"""A third client can be in between at one look; hardly at each."""

_VERIFYING = frozenset({"require", "verify-ca", "verify-full"})

Connection = psycopg.Connection[DictRow]


class _PooledConnection(psycopg.Connection[DictRow]):
    used_at = 0.0

    def __init__(self, *given: Any, **also: Any) -> None:
        super().__init__(*given, **also)
        self.prepared_max = _PREPARED_MOST


Pool = ConnectionPool[_PooledConnection]


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's errors into ours.

    Raises: DatabaseDown for what waiting can mend (server away, disk full, deadlock), LockTimeout for a lock not had
    in time, Permanent for a value that no repetition makes a better one, StatementRefused for the rest: psycopg calls
    more than those operational, such as a value too long for an index.
    """
    try:
        yield
    except (psycopg.InterfaceError, PoolTimeout) as error:
        raise _away(error) from error
    except psycopg.errors.LockNotAvailable as error:
        raise LockTimeout(DATABASE, _waited_in_vain(error)) from error
    except psycopg.Error as error:
        is_passing = error.sqlstate[:2] in _PASSING if error.sqlstate else isinstance(error, psycopg.OperationalError)
        if is_passing and error.sqlstate not in _OWN_FAULTS:
            raise _away(error) from error
        if error.sqlstate and error.sqlstate.startswith(_DATA):
            raise Permanent("a value that the database cannot keep", one_line(error)) from error
        raise StatementRefused(DATABASE, f"{type(error).__name__}: {one_line(error)}") from error


@contextmanager
def failing_for_this_one() -> Iterator[None]:
    """The same in the middle of work for which the database was there when it began.

    Raises: StatementFailed in the place of DatabaseDown: whether others get along, the caller finds out.
    """
    try:
        with translated_errors():
            yield
    except DatabaseDown as error:
        raise StatementFailed(DATABASE, error.detail) from error.__cause__


@contextmanager
def refusing_everybody() -> Iterator[None]:
    """Around a file the statements are ours alone: what is refused there is refused to everybody.

    Raises: DatabaseDown in the place of StatementRefused.
    """
    try:
        yield
    except StatementRefused as error:
        raise DatabaseDown(DATABASE, error.detail, _server.address) from error


def _waited_in_vain(error: psycopg.Error) -> str:
    """What the server says, without the statement that it says it of."""
    return error.diag.message_primary or one_line(error)


class _Server:
    """Where the database of this process is: of a connection that is lost later, psycopg does not say it."""

    address = ""


_server = _Server()


def told_address() -> str:
    """Host and port of the database that this process was told; empty before it was asked for the first time."""
    return _server.address


def _away(error: BaseException) -> DatabaseDown:
    detail = tls.explained(one_line(error), "DATABASE_URL", f"{tls.CA_FILE}, or in sslrootcert in DATABASE_URL")
    return DatabaseDown(DATABASE, detail, _server.address)


def _told_address(given: Mapping[str, Any]) -> str:
    """Host and port, of each server where there are several; what the URL leaves out libpq takes from PG*."""
    hosts = str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "its socket").split(",")
    ports = str(given.get("port") or os.environ.get("PGPORT") or "5432").split(",")
    return ", ".join(f"{host}:{ports[min(at, len(ports) - 1)]}" for at, host in enumerate(hosts))


def address(settings: DatabaseSettings) -> str:
    """What libpq is told: the URL, and for what it leaves open our ways with a silent network and with the CA."""
    url = settings.database_url.get_secret_value()
    given = conninfo_to_dict(url)
    _server.address = _told_address(given)
    ours: dict[str, Any] = dict(_NETWORK)
    mode = given.get("sslmode") or os.environ.get("PGSSLMODE")
    # Where TLS is a mere preference, libpq would answer a certificate that fails with plain text.
    if settings.ca_file and mode in _VERIFYING and "PGSSLROOTCERT" not in os.environ:
        ours["sslrootcert"] = str(settings.ca_file)
    return make_conninfo(url, **{name: value for name, value in ours.items() if name not in given})


class Role(StrEnum):
    """What a connection may do at the most; a login need only be a member of one.

    The values are how the names begin: each database has roles of its own, which `migrate` makes.
    """

    INGEST = "fleettickets_ingest"
    READ = "fleettickets_read"


def connect(
    settings: DatabaseSettings,
    role: Role | None,
    *,
    purpose: str = "",
    patience: float | None = None,
    works_long: bool = False,
) -> Connection:
    """One connection in autocommit mode, for the commands; without a role, with all that the login may do.

    The server shows it by its purpose. With `patience` no statement takes more seconds, unless the work is a long one,
    and none waits nearly so long for a lock, so that who has the lock can still be asked.
    Raises: DatabaseDown, StatementRefused; Misconfigured where the server refuses user, password or database, and
    behind a pooler that gives each transaction another session.
    """
    with translated_errors():
        # libpq takes whole seconds, and two at the least.
        seconds = _CONNECT_SECONDS if patience is None else max(2, int(patience * _PART_OF_PATIENCE))
        try:
            connection = psycopg.Connection.connect(
                address(settings),
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=seconds,
                application_name=f"fleettickets {purpose}".rstrip(),
            )
        except psycopg.OperationalError as error:
            if meaning := refusals.refusal(error, address(settings), seconds):
                told = f"DATABASE_URL: postgres at {_server.address} {meaning}"
                raise LoginRefused(DATABASE, told) from error.__cause__
            raise
        try:
            _require_own_session(connection, settings)
            _begin_session(connection, role)
            if patience is not None:
                lock = patience * _PART_OF_PATIENCE
                statement = 0 if works_long else patience
                brief = {"statement": f"{statement * 1e3:.0f}ms", "lock": f"{lock * 1e3:.0f}ms"}
                connection.execute(statements("session")["be_brief"], brief)
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def open_pool(settings: DatabaseSettings, size: int, purpose: str = "consumer") -> Iterator[Pool]:
    """A pool of `size` connections, opened in the background: Postgres may come up later than we do.

    The server shows them by their purpose.
    """
    with _pool(settings, size, purpose, _prepare_staging, prepared_from=_PREPARED_FROM) as pool:
        yield pool


@contextmanager
def open_reading_pool(settings: DatabaseSettings, size: int, purpose: str, statement_seconds: float) -> Iterator[Pool]:
    """The same of connections that may only read, with a limit for each statement."""

    def prepare(connection: Connection) -> None:
        _begin_session(connection, Role.READ)
        timeout = {"timeout": f"{statement_seconds * 1e3:.0f}ms"}
        connection.execute(statements("session")["only_read"], timeout)

    with _pool(settings, size, purpose, prepare) as pool:
        yield pool


def _pool(
    settings: DatabaseSettings,
    size: int,
    purpose: str,
    configure: Callable[[Connection], None],
    *,
    prepared_from: int = _AS_A_RULE,
) -> Pool:
    return ConnectionPool(
        address(settings),
        connection_class=_PooledConnection,
        kwargs={
            "autocommit": True,
            "row_factory": dict_row,
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": f"fleettickets {purpose}",
            "prepare_threshold": prepared_from,
        },
        min_size=1,
        max_size=size,
        timeout=_CONNECT_SECONDS,
        # An attempt that is given up is begun anew by whoever needs a connection. The pool's own would come at pauses
        # that double for five minutes, and Postgres could be back for as long as it was away before one is made.
        reconnect_timeout=_CONNECT_SECONDS,
        configure=configure,
        check=_require_alive,
        open=False,
    )


@contextmanager
def transaction(pool: Pool, *, keep: bool = True) -> Iterator[Connection]:
    """One transaction on a connection of the pool, undone at its end unless it is to be kept.

    Raises: DependencyDown, also when the answer to COMMIT was lost: the caller asks the ledger then. LockTimeout, with
    who may have the lock.
    """
    with _borrowed(pool) as connection:
        try:
            with naming_holders(connection), connection.transaction(force_rollback=not keep):
                try:
                    yield connection
                finally:
                    _commits.begin(connection)
        except BaseException:
            _release_staging(connection)
            raise
        finally:
            _commits.end(connection)


@contextmanager
def look(pool: Pool) -> Iterator[Connection]:
    """A connection of a reading pool, for what is to be seen as of one moment.

    Raises: DependencyDown, also when none of the pool's is free in time.
    """
    with translated_errors(), pool.connection() as connection, connection.transaction():
        yield connection


@contextmanager
def statement(pool: Pool) -> Iterator[Connection]:
    """A connection of the pool for one statement, which is a transaction by itself and short.

    Raises: the same.
    """
    with _borrowed(pool) as connection, naming_holders(connection):
        _commits.begin(connection)
        try:
            yield connection
        finally:
            _commits.end(connection)


@contextmanager
def _borrowed(pool: Pool) -> Iterator[_PooledConnection]:
    with translated_errors():
        try:
            connection = pool.getconn()
        except PoolTimeout:
            # The pool keeps to itself why it has none; a connection of our own says it.
            psycopg.connect(str(pool.conninfo), connect_timeout=_CONNECT_SECONDS).close()
            raise
        try:
            yield connection
        finally:
            connection.used_at = monotonic()
            pool.putconn(connection)


def _require_alive(connection: _PooledConnection) -> None:
    if monotonic() - connection.used_at > _FRESH_SECONDS:
        ConnectionPool.check_connection(connection)


class _Commits:
    """Ends connections under a COMMIT that is not answered. One thread looks, for as long as there are any."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._since: dict[Connection, float] = {}
        self._thread: Thread | None = None

    def begin(self, connection: Connection) -> None:
        with self._lock:
            self._since[connection] = monotonic()
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._look, name="commits", daemon=True)
                self._thread.start()

    def end(self, connection: Connection) -> None:
        with self._lock:
            self._since.pop(connection, None)

    def _look(self) -> None:
        while True:
            sleep(_COMMITS_LOOKED_AT_SECONDS)
            with self._lock:
                if not self._since:
                    self._thread = None
                    return
                for connection, since in self._since.items():
                    if monotonic() - since > _COMMIT_SECONDS:
                        _cut(connection)


_commits = _Commits()


def _at_what(session: DictRow) -> str:
    since = "" if session["seconds"] is None else f", in a transaction for {session['seconds']:.0f} s"
    return f"{session['application'] or 'unnamed'}{since}"


@contextmanager
def naming_holders(connection: Connection) -> Iterator[None]:
    """Say of a lock that was not had in time who may have it: the transactions that have been open for longest.

    Who waits for a lock himself is not named beside those who wait for none: nothing is mended by ending him.
    """
    try:
        yield
    except (psycopg.errors.LockNotAvailable, LockTimeout) as error:
        others = rows(connection, "waits", "lock_holders")
        named = "; ".join(f"{other['user']} (pid {other['pid']}, {_at_what(other)})" for other in others)
        raise LockTimeout(DATABASE, f"locks are held by {named or 'nobody any more'}") from error


def _release_staging(connection: Connection) -> None:
    """Give back the room on disk that a transaction's staged rows take also when it ended without COMMIT."""
    # The server empties the table when a transaction that looked at it commits, and at no other time: a full disk would
    # stay full of rows that nobody has.
    with suppress(psycopg.Error):
        connection.execute(statements("merge")["look_at_staging"])


def _cut(connection: Connection) -> None:
    """End a connection under somebody who waits for its answer: he meets it as lost."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


def _begin_session(connection: Connection, role: Role | None) -> None:
    connection.execute(statements("session")["fix_names"])
    # A server, database or login can have it off, and would lose the last commits in a crash; their objects would be
    # archived and their messages acked by then.
    connection.execute(statements("session")["keep_commits"])
    if role is not None:
        connection.execute(statements("waits")["bound_lock_waits"], {"timeout": f"{_LOCK_SECONDS}s"})
        # A login that is no member keeps its own rights, and a database not yet migrated has no role to give.
        connection.execute(statements("session")["act_as"], {"role": role})


def _prepare_staging(connection: Connection) -> None:
    _begin_session(connection, Role.INGEST)
    connection.execute(statements("session")["notice_silence"])
    connection.execute(statements("session")["wait_for_store"])
    connection.execute(statements("session")["plan_once"])
    connection.execute(statements("merge")["create_staging"])


def _require_own_session(connection: Connection, settings: DatabaseSettings) -> None:
    """Raise: Misconfigured, before anything is set that the next client of the session would find set.

    A pooler tells its client another process number than that of the server process that answers. Whether it gives
    each transaction another session shows beside a second client: both are given the same one, or the first one gets
    another meanwhile.
    """
    if _server_process(connection) == connection.info.backend_pid:
        return
    with psycopg.Connection[DictRow].connect(
        address(settings), autocommit=True, row_factory=dict_row, connect_timeout=_CONNECT_SECONDS
    ) as other:
        for _ in range(_LOOKS_AT_POOLER):
            first = _server_process(connection)
            try:
                with other.transaction():
                    is_shared = _server_process(other) == first or _server_process(connection) != first
            except psycopg.errors.ProtocolViolation:  # in statement mode there are no transactions at all
                is_shared = True
            if is_shared:
                raise Misconfigured(
                    "DATABASE_URL leads to a connection pooler that gives each transaction another session; "
                    "have it pool whole sessions (PgBouncer: pool_mode=session), or name PostgreSQL itself"
                )


def _server_process(connection: Connection) -> int:
    found = connection.execute(statements("session")["server_process"]).fetchone()
    return int(found["pid"]) if found else 0


def rows(
    connection: Connection,
    file: str,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    feed: Feed | None = None,
) -> list[DictRow]:
    """Run a statement of `sql/queries/<file>.sql`, on the tables of a feed, and give its rows, if it has any."""
    cursor = connection.execute(_text(file, name, feed), parameters or {})
    return cursor.fetchall() if cursor.description else []


class Statement(NamedTuple):
    """One of `sql/queries/<file>.sql`, what it is given, and the feed on whose tables it runs."""

    file: str
    name: str
    parameters: Mapping[str, Any] = {}
    feed: Feed | None = None


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("error ignored terminating <psycopg.Pipeline")


# What breaks a pipeline is raised; that the rest of it could not be read either is said by a warning beside.
logging.getLogger("psycopg").addFilter(_is_news)


def rows_of_each(connection: Connection, asked: Sequence[Statement]) -> list[list[DictRow]]:
    """Run statements one after the other, none of which needs the answer of another, in one round trip."""
    with connection.pipeline():
        cursors = [connection.execute(_text(each.file, each.name, each.feed), each.parameters) for each in asked]
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


def row(
    connection: Connection,
    file: str,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    feed: Feed | None = None,
) -> DictRow | None:
    """The same for a statement that gives at most one row."""
    found: Sequence[DictRow] = rows(connection, file, name, parameters, feed=feed)
    return found[0] if found else None


def _text(file: str, name: str, feed: Feed | None) -> bytes:
    return statements(file)[name].encode() if feed is None else of_feed(file, name, feed)
