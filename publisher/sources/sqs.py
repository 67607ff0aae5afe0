"""AWS's way in: the bucket announces to an SQS queue, and this carries each message over to the channels.

A message leaves SQS only after the broker has confirmed it. Until then it stays hidden from others for as long as it
is in hand here; whatever goes wrong, it comes again, and a message that comes twice does no harm.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from pika.adapters.blocking_connection import BlockingChannel
from pydantic import HttpUrl

from publisher import tls
from publisher.absences import Absences
from publisher.broker import channels, publishing, tracing
from publisher.errors import DependencyDown, LoginRefused, Misconfigured
from publisher.heartbeat import Pulse
from publisher.settings import BrokerSettings, SqsSettings, host_and_port
from publisher.spans import UNRECORDED, Spans
from publisher.store.bucket import verified_by

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

SQS = "SQS"
_BATCH = 10
_LONG_POLL = 20
_DRAIN_POLL = 1
"""Seconds. Not 0: that would ask only some of the servers that hold the queue."""
_HIDDEN = 20
"""Seconds for which a message is hidden from other readers, counted anew at each extension."""
_EXTEND_EVERY = 5
_BEAT = 0.1
_BUSY_CODES = frozenset({"OverLimit", "RequestTimeout", "InternalFailure", "InternalError", "ServiceUnavailable"})
_SERVER_ERROR = 500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SqsMessage:
    """One message as SQS hands it out; `receipt` is what this one reading of it is known by."""

    receipt: str
    body: str


@dataclass(frozen=True, slots=True)
class Carried:
    """Messages confirmed by the broker, and how many of them were deleted from SQS after that."""

    published: int
    deleted: int


class SqsQueue:
    """One SQS queue behind boto3, with the credentials of AWS's own environment. Safe to share between threads."""

    def __init__(self, settings: SqsSettings) -> None:
        self._url = str(settings.queue_url)
        self._where = ""
        region = re.search(r"\bsqs\.([a-z0-9-]+)\.(?:vpce\.)?amazonaws\.com", self._url)
        with _translated_errors(self._where):
            self._sqs: SQSClient = boto3.client(
                "sqs",
                endpoint_url=str(settings.endpoint) if settings.endpoint else None,
                # AWS's own certificates are of public CAs, whatever private one the other services have.
                verify=verified_by(settings.ca_file) if settings.endpoint else None,
                # A request for a queue of another region would be refused.
                region_name=region[1] if region else None,
                config=Config(
                    connect_timeout=5, read_timeout=_LONG_POLL + 10, retries={"mode": "standard", "max_attempts": 3}
                ),
            )
        # Whatever host the queue's URL has, this is asked.
        self._where = host_and_port(HttpUrl(self._sqs.meta.endpoint_url))

    def receive(self, wait: int) -> list[SqsMessage]:
        """Up to ten messages, as soon as there are any, none after `wait` seconds.

        Raises: DependencyDown; Misconfigured, when SQS refuses the queue or the credentials.
        """
        with _translated_errors(self._where):
            answer = self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=wait, VisibilityTimeout=_HIDDEN
            )
        return [SqsMessage(found["ReceiptHandle"], found["Body"]) for found in answer.get("Messages", [])]

    def delete(self, messages: list[SqsMessage]) -> int:
        """Give how many were deleted.

        Raises: DependencyDown, Misconfigured.
        """
        with _translated_errors(self._where):
            answer = self._sqs.delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": str(n), "ReceiptHandle": message.receipt} for n, message in enumerate(messages)],
            )
        for failed in answer.get("Failed", []):
            log.warning("sqs delete failed", code=failed["Code"], detail=failed.get("Message", ""))
        return len(answer.get("Successful", []))

    def hide(self, messages: list[SqsMessage], seconds: int) -> None:
        """Hide messages from other readers for so long from now on; 0 shows them again.

        Raises: DependencyDown, Misconfigured.
        """
        with _translated_errors(self._where):
            self._sqs.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                    for n, message in enumerate(messages)
                ],
            )


class Bridge:
    """Carries batches from SQS to the broker, one at a time. As a context it keeps the batch in hand hidden.

    Three threads: the caller's talks to the broker, one receives, one extends the hiding. They share `_in_hand`,
    which is only ever replaced whole, and filled only while it is empty.
    """

    def __init__(self, queue: SqsQueue, pulse: Pulse | None = None, spans: Spans = UNRECORDED) -> None:
        self._queue = queue
        self._spans = spans
        self._pulse = pulse or Pulse()
        self._in_hand: list[SqsMessage] = []
        self._receiving: Future[None] | None = None
        self._ended = Event()
        self._keeper = Thread(target=self._keep_hidden, name="sqs visibility", daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._keeper.join()
        if messages := self._in_hand:
            try:
                self._queue.hide(messages, 0)
            except (DependencyDown, Misconfigured) as error:
                log.info("messages come again later", messages=len(messages), detail=str(error))

    def run(
        self,
        settings: BrokerSettings,
        stop: Event,
        absences: Absences,
        *,
        begun: Callable[[], None],
        report: Callable[[Carried], None],
    ) -> None:
        """Carry until `stop`, through losses of the broker and of SQS; `begun` is called once both have answered.

        Raises: DependencyDown, only when stopped while one of them is away; Misconfigured.
        """
        attempts = channels.Reconnecting(stop, absences)
        has_begun = False
        for attempt in attempts:
            with attempt, self._pulse.noting_absence(), channels.declared_channel(settings, "sqs") as channel:
                while not stop.is_set():
                    batch = self._carry(channel, stop, _LONG_POLL)
                    attempts.held(attempt)
                    self._pulse.settled()  # also where there was nothing to carry: SQS has said so
                    if not has_begun:
                        begun()
                        has_begun = True
                    if batch.published:
                        report(batch)

    def drain(self, channel: BlockingChannel, stop: Event) -> Carried:
        """Carry until SQS has no more to give, or does not let go of what it gave.

        Raises: DependencyDown, Misconfigured.
        """
        published = deleted = 0
        while published == deleted and not stop.is_set():
            batch = self._carry(channel, stop, _DRAIN_POLL)
            published, deleted = published + batch.published, deleted + batch.deleted
            if not batch.published:
                break
        return Carried(published, deleted)

    def _carry(self, channel: BlockingChannel, stop: Event, wait: int) -> Carried:
        if not self._in_hand:
            self._receive(channel, stop, wait)
        messages = self._in_hand
        if not messages:
            return Carried(0, 0)
        with self._pulse.at("a batch of SQS"):
            for message in messages:
                with tracing.sending(self._spans, publishing.arrival(message.body.encode())) as event:
                    publishing.publish(channel, event)
                log.debug("handed on", size=len(event.body), trace_id=event.trace.id)
            self._in_hand = []
            return Carried(len(messages), self._delete(messages))

    def _receive(self, channel: BlockingChannel, stop: Event, wait: int) -> None:
        """Wait for messages without keeping the broker's heartbeats or a signal waiting.

        A receive outlives the connection that it was begun under, and what it brings is not lost.
        """
        if self._receiving is None:
            self._receiving = Future()
            Thread(target=self._take, args=(self._receiving, wait), name="sqs receive", daemon=True).start()
        while not self._receiving.done():
            if stop.is_set():
                return
            self._pulse.turned()
            with channels.translated_errors():
                channel.connection.process_data_events(time_limit=_BEAT)
        done, self._receiving = self._receiving, None
        done.result()

    def _take(self, taken: Future[None], wait: int) -> None:
        try:
            self._in_hand = self._queue.receive(wait)
        except Exception as error:  # noqa: BLE001 - belongs to the caller, in its thread
            taken.set_exception(error)
        else:
            taken.set_result(None)

    def _delete(self, messages: list[SqsMessage]) -> int:
        try:
            return self._queue.delete(messages)
        except DependencyDown as error:
            log.warning("sqs delete failed", messages=len(messages), detail=str(error))
            return 0

    def _keep_hidden(self) -> None:
        while not self._ended.wait(_EXTEND_EVERY):
            if messages := self._in_hand:
                try:
                    self._queue.hide(messages, _HIDDEN)
                except (DependencyDown, Misconfigured) as error:
                    log.warning("sqs visibility not extended", messages=len(messages), detail=str(error))
                else:
                    log.info("sqs visibility extended", messages=len(messages))


@contextmanager
def _translated_errors(where: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = f"{code}: {_one_line(error.response.get('Error', {}).get('Message', ''))}"
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= _SERVER_ERROR or code in _BUSY_CODES or "throttl" in code.lower():
            raise DependencyDown(SQS, text, where) from error
        if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
            raise Misconfigured("FLEETTICKETS_SQS_QUEUE_URL: there is no such queue") from error
        told = f"SQS refuses {error.operation_name}, see the queue's URL and AWS_*: {text}"
        raise LoginRefused(SQS, told) from error
    except NoRegionError as error:
        raise Misconfigured("AWS_DEFAULT_REGION is not set, and the queue's URL names no region") from error
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        raise Misconfigured(f"AWS credentials (AWS_ACCESS_KEY_ID, a profile or a role): {_one_line(error)}") from error
    except BotoCoreError as error:
        raise DependencyDown(SQS, tls.explained(_one_line(error), "FLEETTICKETS_SQS_ENDPOINT"), where) from error


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
