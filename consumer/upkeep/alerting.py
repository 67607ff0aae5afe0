"""What the receiver of alerts gets: a text as chat programs take it, or a CloudEvent; and how it gets there."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from threading import Event
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import requests
import tenacity
from urllib3.exceptions import HTTPError, ReadTimeoutError

from consumer.settings import AlertSettings
from publisher import tls
from publisher.errors import DependencyDown, FleetticketsError, Refused
from publisher.terminal import duration, moment, printable

RECEIVER = "the receiver of alerts"
_SECONDS = 5.0
_ATTEMPTS = 3
_WAIT = tenacity.wait_exponential_jitter(multiplier=0.5, max=2)
TELLING_SECONDS = 20.0
"""Longer than all tries to send one take."""
_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
# What a key or an error has in it is for reading: no link, no mention, nothing that calls a whole channel.
_HARMLESS = str.maketrans(
    {"<": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}", ">": "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
     "@": "@\N{ZERO WIDTH SPACE}", "[": "(", "]": ")"}
)  # fmt: skip


class Phase(StrEnum):
    """What is told of a cause; or that telling works."""

    BEGAN = "began"
    OVER = "over"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to tell. `over_line` is how it stands now, where the cause is over."""

    alert_id: UUID
    phase: Phase
    cause: str
    line: str
    advice: str
    began_at: datetime
    over_at: datetime | None = None
    over_line: str | None = None

    @property
    def message_id(self) -> str:
        """The same however often it is sent."""
        return f"{self.alert_id}-{self.phase}"


@dataclass(frozen=True, slots=True)
class Whence:
    """What the alerts of a process are about."""

    bucket: str
    store: str
    feeds: Sequence[str]

    def __str__(self) -> str:
        feeds = f"{'feed' if len(self.feeds) == 1 else 'feeds'} {', '.join(self.feeds)}"
        return f"bucket {self.bucket} at {self.store}, {feeds}; seen by {platform.node()}, pid {os.getpid()}"


def trial() -> Alert:
    """To see whether they arrive."""
    told = "TEST: sent by fleettickets doctor; nothing is wrong"
    return Alert(uuid4(), Phase.TEST, "test", told, "nothing to do", datetime.now(UTC))


def text_of(alert: Alert, whence: Whence) -> str:
    """For a person: what is wrong, what to do, since when, and where."""
    if alert.phase is Phase.OVER and alert.over_at is not None:
        lasted = duration((alert.over_at - alert.began_at).total_seconds())
        lines = [
            f"fleettickets: over: {alert.line}",
            f"it began at {moment(alert.began_at)} and was over after {lasted}; now: {alert.over_line}",
        ]
    else:
        lines = [
            f"fleettickets: {alert.line}",
            f"what to do: {alert.advice}",
            f"since {moment(alert.began_at)}",
        ]
    return "\n".join(printable(line).translate(_HARMLESS) for line in [*lines, f"{whence}; id {alert.message_id}"])


def event_of(alert: Alert, whence: Whence) -> dict[str, Any]:
    """CloudEvents 1.0, as one JSON object; what is not there is left out."""
    data = {
        "line": alert.line,
        "advice": alert.advice,
        "began_at": alert.began_at.isoformat(),
        "over_at": alert.over_at.isoformat() if alert.over_at else None,
        "now": alert.over_line,
        "bucket": whence.bucket,
        "store": whence.store,
        "feeds": list(whence.feeds),
        "host": platform.node(),
        "pid": os.getpid(),
    }
    return {
        "specversion": "1.0",
        "id": alert.message_id,
        "source": f"/fleettickets/{whence.bucket}",
        "type": f"fleettickets.alert.{alert.phase}",
        "subject": alert.cause,
        "time": (alert.over_at or alert.began_at).isoformat(),
        "datacontenttype": "application/json",
        "data": {name: value for name, value in data.items() if value is not None},
    }


class AlertReceiver:
    """Who is told. Its address is a secret as a whole, and only the host of it is ever shown."""

    def __init__(self, url: str, settings: AlertSettings, whence: Whence, stop: Event) -> None:
        self._url = url
        self._settings = settings
        self._whence = whence
        self._stop = stop
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        if parts.port is not None:
            self.host += f":{parts.port}"

    def tell(self, alert: Alert) -> None:
        """Send it; when this comes back, the receiver has it.

        Raises: DependencyDown, after a few tries; Refused.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(DependencyDown),
            wait=_WAIT,
            stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        retrying(self._send, alert)

    def _send(self, alert: Alert) -> None:
        if self._settings.form == "cloudevents":
            body, kind = event_of(alert, self._whence), "application/cloudevents+json"
        else:
            body, kind = {"text": text_of(alert, self._whence)}, "application/json"
        error: FleetticketsError | None
        try:
            with requests.post(
                self._url,
                data=json.dumps(body).encode(),
                headers={"Content-Type": f"{kind}; charset=utf-8"},
                timeout=_SECONDS,
                stream=True,  # what it answers beside the status is not read
                # The address is the secret, which is for nobody else.
                allow_redirects=False,
                verify=str(self._settings.ca_file) if self._settings.ca_file else True,
            ) as answer:
                error = self._why_not(answer.status_code)
        except (requests.RequestException, HTTPError, OSError) as failure:
            error = DependencyDown(RECEIVER, f"{_described(failure)} ({self.host})")
        # Out here, where the library's error, which has the address in it, is no context of ours.
        if error is not None:
            raise error

    def _why_not(self, status: int) -> FleetticketsError | None:
        told = f"HTTP {status} ({self.host})"
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return None
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _AGAIN:
            return DependencyDown(RECEIVER, told)
        return Refused(RECEIVER, f"{told}: see FLEETTICKETS_ALERT_URL and FLEETTICKETS_ALERT_FORMAT")


def _described(error: Exception) -> str:
    if isinstance(error, (requests.Timeout, ReadTimeoutError, TimeoutError)):
        return f"no answer within {_SECONDS:g} s"
    # The reason says what happened; the error around it, to which URL.
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return tls.explained(" ".join(str(reason or type(error).__name__).split())[:300], "FLEETTICKETS_ALERT_URL")
