"""RabbitMQ behind pika: connections and channels with an end to every wait.

pika's BlockingConnection belongs to one thread; only `add_callback_threadsafe` may be called from another.
"""

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pika
import pika.exceptions
import tenacity
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorPhaseErrorBase

from publisher import tls
from publisher.absences import Absences
from publisher.broker import header_tables, topology
from publisher.broker.confirms import REFUSED
from publisher.errors import DependencyDown, HeldByAnother, LoginRefused, Misconfigured, NotConfirmed
from publisher.settings import BrokerSettings

Channel = BlockingChannel
"""For those who only pass it on, or publish on it."""

BROKER = "rabbitmq"
LOOKING_HEARTBEAT = 10
"""Seconds, for who only looks: a broker that falls silent is told of within half a minute."""
POLL = "poll"
"""What only one poller does at a time."""
RECONNECT_WAIT = tenacity.wait_exponential_jitter(multiplier=0.5, max=30)
_BLOCKED_SECONDS = 60
_AGAIN_SECONDS = 0.2
DECLARING_SECONDS = 30
"""For all declarations: one that a living broker does not answer is never answered."""
_SOCKET = re.compile(r":? ?'[^']*'/\(<AddressFamily.*")
"""How pika tells the address that it has tried, which we tell ourselves."""
# A broker that takes the connection and then says nothing is told by an error of another tree.
_CONNECTION_ERRORS = (pika.exceptions.AMQPError, AMQPConnectorException, OSError)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn pika's errors into ours.

    Raises: DependencyDown.
    """
    try:
        yield
    except pika.exceptions.NackError as error:
        raise NotConfirmed("nacked", REFUSED) from error
    except _CONNECTION_ERRORS as error:
        raise lost(error) from error


class _Server:
    """Where the broker of this process is: pika's errors do not say it."""

    address = ""


_server = _Server()


def address() -> str:
    """Host and port of the broker that this process was told; empty before it was asked for the first time."""
    return _server.address


def lost(error: BaseException) -> DependencyDown:
    """What an error of pika says of the connection, and what to do where it is TLS that fails."""
    return away(tls.explained(describe(error), "RABBITMQ_URL"))


def away(detail: str) -> DependencyDown:
    """The broker does not do what it should, and where it is."""
    return DependencyDown(BROKER, detail, _server.address)


def describe(error: BaseException) -> str:
    """One line for an error of pika, whose own text is often empty."""
    inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    if isinstance(inner, AMQPConnectorPhaseErrorBase):  # whose own text is empty
        inner = inner.exception
    text = _SOCKET.sub("", " ".join(str(inner).split()))
    return f"{type(inner).__name__}: {text}"[:300] if text else type(inner).__name__


def connect(settings: BrokerSettings, purpose: str, heartbeat: int | None = None) -> BlockingConnection:
    """Open a connection named `fleettickets <purpose>` on the broker.

    With a `heartbeat` in seconds, a wait for an answer ends soon after the broker has fallen silent.

    Raises: DependencyDown; Misconfigured when the broker refuses the credentials or the virtual host.
    """
    try:
        with translated_errors():
            asked = parameters(settings, purpose)
            if heartbeat is not None:
                asked.heartbeat = heartbeat
            return BlockingConnection(asked)
    except DependencyDown as error:
        raise _refusal(error.__cause__) or error from error.__cause__


def parameters(settings: BrokerSettings, purpose: str) -> pika.URLParameters:
    """How every connection of the program is opened: by a name that the broker shows, and with an end to its waits.

    Raises: Misconfigured.
    """
    try:
        found = pika.URLParameters(settings.rabbitmq_url.get_secret_value())
    except (ValueError, TypeError, SyntaxError, OSError):
        # What pika says of it can quote the password.
        raise Misconfigured("RABBITMQ_URL is wrong: amqp[s]://user:password@host:port/vhost?option=value") from None
    if found.ssl_options is not None:
        found.ssl_options = _verifying(settings, found)
    _server.address = f"{found.host}:{found.port}"
    header_tables.install()
    found.blocked_connection_timeout = _BLOCKED_SECONDS
    found.client_properties = {"connection_name": f"fleettickets {purpose}"}
    return found


def _verifying(settings: BrokerSettings, given: pika.URLParameters) -> pika.SSLOptions:
    """How TLS is spoken: by `ssl_options` in the URL, where they verify no less, or else our way.

    Raises: Misconfigured.
    """
    if "ssl_options=" not in urlsplit(settings.rabbitmq_url.get_secret_value()).query:
        return pika.SSLOptions(tls.context(settings.ca_file), given.host)
    options = given.ssl_options
    if options is None or options.context.verify_mode != ssl.CERT_REQUIRED or not options.context.check_hostname:
        raise Misconfigured("RABBITMQ_URL is wrong: its ssl_options switch the verification of the certificate off")
    return options


def _refusal(error: BaseException | None) -> LoginRefused | None:
    # The library takes whatever ends a connection in these phases for a refusal; a broker that refuses says so.
    is_said = "ConnectionClosedByBroker" in str(error)
    at = f"rabbitmq at {_server.address}"
    match error:
        case pika.exceptions.ProbableAuthenticationError() if is_said:
            return LoginRefused(BROKER, f"RABBITMQ_URL: {at} refuses this user or password")
        case pika.exceptions.AuthenticationError():
            return LoginRefused(BROKER, f"RABBITMQ_URL: {at} takes no user and password in the way they are sent")
        case pika.exceptions.ProbableAccessDeniedError() if is_said:
            return LoginRefused(BROKER, f"RABBITMQ_URL: {at} has no such virtual host, or gives no access to it")
    return None


class Reconnecting:
    """Attempts with growing delay for work that needs a connection, until it ends well or `stop` is set.

    Raises: DependencyDown, when stopped while the broker is away; Misconfigured, when the first attempts already find
    what only an operator can mend. Once one has held, that is waited out too: what somebody takes away from under a
    running process, he can put back.
    """

    def __init__(self, stop: Event, absences: Absences) -> None:
        self._stop = stop
        self._absences = absences
        self._has_held = False
        self._missed: set[str] = set()

    def __iter__(self) -> Iterator[tenacity.AttemptManager]:
        return iter(
            tenacity.Retrying(
                retry=tenacity.retry_if_exception(self._is_worth_waiting),
                wait=RECONNECT_WAIT,
                stop=tenacity.stop_when_event_set(self._stop),
                sleep=tenacity.sleep_using_event(self._stop),
                before_sleep=self._wait,
                reraise=True,
            )
        )

    def held(self, attempt: tenacity.AttemptManager) -> None:
        """The attempt's connection works: the back-off starts anew with the next loss."""
        attempt.retry_state.attempt_number = 1
        self._has_held = True
        self._absences.served(*self._missed)
        self._missed.clear()

    def _is_worth_waiting(self, error: BaseException) -> bool:
        return isinstance(error, DependencyDown) or (self._has_held and isinstance(error, Misconfigured))

    def _wait(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if missed := self._absences.wait(error, state.upcoming_sleep):
            self._missed.add(missed)


@contextmanager
def ending_after(seconds: float, connection: BlockingConnection, late: str) -> Iterator[None]:
    """End the connection with the error `late` when the work takes longer.

    For an answer that a living broker does not give pika would wait for ever, and take nothing else meanwhile.
    """
    inner: Any = getattr(connection, "_impl")  # noqa: B009 - pika keeps it to itself, and so its timers
    error = pika.exceptions.AMQPConnectionError(late)

    def end() -> None:
        if not inner.is_closed:  # as by heartbeats that ran out in the same moment
            inner._terminate_stream(error)  # noqa: SLF001

    timer = inner._adapter_call_later(seconds, end)  # noqa: SLF001
    try:
        yield
    finally:
        inner._adapter_remove_timeout(timer)  # noqa: SLF001


@contextmanager
def confirming_channel(
    settings: BrokerSettings, purpose: str, heartbeat: int | None = None, limit: float | None = None
) -> Iterator[BlockingChannel]:
    """A channel in confirm mode for one piece of work, closed afterwards; with a `limit` after so many seconds."""
    connection = connect(settings, purpose, heartbeat)
    late = f"it did not answer everything within {limit} s"
    with nullcontext() if limit is None else ending_after(limit, connection, late):
        try:
            with translated_errors():
                channel = connection.channel()
                channel.confirm_delivery()
            yield channel
        finally:
            if connection.is_open:
                with translated_errors():
                    connection.close()


@contextmanager
def declared_channel(settings: BrokerSettings, purpose: str, heartbeat: int | None = None) -> Iterator[BlockingChannel]:
    """The same, with everything declared that is missing, which a broker without a leader would never answer.

    Raises: DependencyDown, Misconfigured.
    """
    with confirming_channel(settings, purpose, heartbeat) as channel:
        late = f"it did not answer every declaration within {DECLARING_SECONDS} s"
        with translated_errors(), ending_after(DECLARING_SECONDS, channel.connection, late):
            topology.declare(channel)
        yield channel


def lock_name(purpose: str) -> str:
    """The queue that is held by whoever does this alone."""
    return f"{topology.LOCK_PREFIX}{purpose}"


@contextmanager
def alone(channel: BlockingChannel, purpose: str, patience: float = 0) -> Iterator[None]:
    """Keep everybody else on this virtual host from the same purpose, once they are through with it in so many seconds.

    The lock is an exclusive queue, so the broker frees it when our connection ends, in whatever way.

    Raises: HeldByAnother, DependencyDown; Misconfigured, where this user may not hold it.
    """
    name, until = lock_name(purpose), time.monotonic() + patience
    with translated_errors():
        while (lock := _lock(channel.connection, name)) is None:
            if time.monotonic() >= until:
                raise HeldByAnother(purpose, "another process is at it; try again once it is through")
            channel.connection.process_data_events(time_limit=_AGAIN_SECONDS)
    try:
        yield
    finally:
        if lock.is_open:
            with translated_errors():
                lock.queue_delete(name)


def _lock(connection: BlockingConnection, name: str) -> BlockingChannel | None:
    """The channel that has it; None while another process does. Raises: Misconfigured."""
    lock = connection.channel()
    try:
        lock.queue_declare(name, exclusive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code == topology.ACCESS_REFUSED:
            raise Misconfigured(
                f"RABBITMQ_URL: this user may not hold {name!r}, by which one process at a time does this; which "
                "user is for it: docs/security.md, Roles"
            ) from error
        return None
    return lock


def server_version(channel: BlockingChannel) -> str:
    """What the server says of itself, like `RabbitMQ 3.10.8`."""
    properties = getattr(channel.connection, "_impl").server_properties or {}  # noqa: B009 - pika keeps it to itself
    return f"{properties.get('product', 'unknown')} {properties.get('version', '')}".strip()


def queue_depth(channel: BlockingChannel, name: str) -> tuple[int, int]:
    """Messages ready (unacked ones not counted) and consumers of a queue that must exist.

    Raises: DependencyDown; Misconfigured when there is no such queue.
    """
    try:
        with translated_errors():
            answer = channel.queue_declare(name, passive=True)
    except DependencyDown as error:
        if isinstance(error.__cause__, pika.exceptions.ChannelClosedByBroker):
            raise Misconfigured(f"the broker has no queue {name!r}; run: fleettickets topology") from error
        raise
    return answer.method.message_count, answer.method.consumer_count
