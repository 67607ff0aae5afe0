"""The receiver of a store's webhook: an event is answered with 200 once the broker has it, and not before.

Whatever the answer, nothing is lost: a store keeps the event until it gets a 200. So a body that is no event is taken
as well, since a store would repeat it for ever; the consumer makes a dead letter of it, with the reason.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from threading import Event
from typing import Any, Protocol

import structlog
from fastapi import FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from publisher import metrics
from publisher.absences import Absences
from publisher.arrivals.store_events import read_event
from publisher.broker import channels, tracing
from publisher.broker.confirming import UNCONFIRMED, AsyncLink
from publisher.broker.publishing import Outgoing, arrival
from publisher.errors import NotConfirmed, Permanent
from publisher.heartbeat import PausedBy, Pulse
from publisher.log import Sparing, following
from publisher.settings import BrokerSettings, WebhookSettings
from publisher.sources import http_limits, http_server
from publisher.sources.places import Places
from publisher.spans import UNRECORDED, Attribute, Span, SpanKind, Spans
from publisher.trace import TRACEPARENT, TRACESTATE, Trace

RETRY_AFTER_SECONDS = 5
BODY_SECONDS = 30
_TELL_SECONDS = 60
log = structlog.get_logger()


class Outlet(Protocol):
    """Where events go: an AsyncLink, or a stand-in for it."""

    def require_broker(self) -> None: ...
    async def publish(self, outgoing: Outgoing) -> None: ...


class Refusal(Exception):
    """An event that is not taken on: what the store is told, and the word it is counted under."""

    def __init__(self, status: int, reason: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers


class Receiver:
    """Takes events in, a bounded number at once."""

    def __init__(
        self, outlet: Outlet, settings: WebhookSettings, warnings: Sparing, pulse: Pulse, spans: Spans
    ) -> None:
        self._pulse = pulse
        self._spans = spans
        self._outlet = outlet
        self._settings = settings
        self._warnings = warnings
        self._in_hand = 0

    async def receive(self, request: Request) -> None:
        """Give the body of the request to the broker.

        Raises: Refusal.
        """
        metrics.RECEIVED.inc()
        self._require_token(request.headers.get("authorization", ""))
        http_limits.trust(request.scope)
        if self._in_hand >= UNCONFIRMED:
            raise _try_again("busy", f"{UNCONFIRMED} events are in hand already")
        self._in_hand += 1
        self._pulse.took(request, lambda: "an event")
        try:
            body = await self._read(request)
            began = time.perf_counter()
            span = self._span(request, body)
            try:
                with tracing.sending(self._spans, arrival(body, span.trace)) as event:
                    await self._outlet.publish(event)
            except NotConfirmed as error:
                span.fail(error.reason)
                self._pulse.held_up(PausedBy.AWAY, str(error))
                raise _try_again(error.reason, str(error)) from error
            finally:
                span.end()
            self._pulse.settled()
            metrics.CONFIRM_SECONDS.observe(time.perf_counter() - began)
            metrics.CONFIRMED.inc()
            with following(event.trace):
                log.debug("handed on", size=len(body))
                self._note_what_is_no_event(body)
        finally:
            self._pulse.let_go(request)
            self._in_hand -= 1

    def _span(self, request: Request, body: bytes) -> Span:
        """Of an event that is there, to the broker's confirm."""
        told: dict[str, Attribute] = {
            "http.request.method": request.method,
            "url.path": request.url.path,
            "http.request.body.size": len(body),
        }
        trace = _trace(request) or Trace.of(body)
        return self._spans.begin(SpanKind.SERVER, f"{request.method} {request.url.path}", trace, told)

    def _require_token(self, header: str) -> None:
        """A store sends `Bearer <token>`, or the token as it is where that has two words already."""
        if not header:
            raise _unauthorized("no token: send the header `Authorization: Bearer <FLEETTICKETS_WEBHOOK_TOKEN>`")
        token = self._settings.token.get_secret_value()
        given = header.strip().encode("latin-1")
        scheme, _, rest = given.partition(b" ")
        right = secrets.compare_digest(given, token.encode())
        right |= (scheme.lower() == b"bearer") & secrets.compare_digest(rest.strip(), token.encode())
        if not right:
            raise _unauthorized("wrong token: it is not the one in FLEETTICKETS_WEBHOOK_TOKEN")

    async def _read(self, request: Request) -> bytes:
        limit = self._settings.max_bytes
        too_large = Refusal(413, "too_large", f"the body is larger than {limit} bytes (FLEETTICKETS_WEBHOOK_MAX_BYTES)")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise Refusal(408, "slow", f"the body did not arrive within {BODY_SECONDS} s") from None
        except ClientDisconnect:
            raise Refusal(400, "broken_off", "the body broke off") from None
        if not body:
            raise Refusal(422, "empty", "the body is empty: send the store's event as JSON")
        return bytes(body)

    def _note_what_is_no_event(self, body: bytes) -> None:
        try:
            read_event(body)
        except Permanent as error:
            metrics.NO_EVENT.inc()
            self._warnings.warn("taken", "no event", detail=str(error), size=len(body))


def _trace(request: Request) -> Trace | None:
    return Trace.read(request.headers.getlist(TRACEPARENT), request.headers.getlist(TRACESTATE))


def _unauthorized(detail: str) -> Refusal:
    return Refusal(401, "token", detail, {"WWW-Authenticate": "Bearer"})


def _try_again(reason: str, detail: str) -> Refusal:
    return Refusal(503, reason, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)})


_DESCRIPTION = """Receives the events of a bucket's store (RustFS, MinIO, or any that sends S3 event JSON) and hands
them to RabbitMQ unchanged, where the consumer finds them. An event is answered with 200 once the broker has it on disk
in a queue. After any other answer the store still has it and sends it again."""

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The broker has the event on disk, in a queue. Also for a body that is no event."},
    401: {"description": "No token, or a wrong one; the text says which."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is larger than FLEETTICKETS_WEBHOOK_MAX_BYTES."},
    422: {"description": "The body is empty."},
    503: {
        "description": "The broker is away, takes no messages, did not confirm in time, or no queue is bound. "
        "Send it again.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
}
_EVENT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The store's event, published byte for byte.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


def application(
    outlet: Outlet,
    settings: WebhookSettings,
    warnings: Sparing,
    pulse: Pulse | None = None,
    spans: Spans = UNRECORDED,
) -> ASGIApp:
    """The receiver as a web application."""
    receiver = Receiver(outlet, settings, warnings, pulse or Pulse(), spans)
    # No redirects: stores do not follow them. No pages: FastAPI's load their scripts from a host on the internet.
    app = FastAPI(
        title="fleettickets webhook", description=_DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    token = APIKeyHeader(
        name="Authorization",
        auto_error=False,
        description="`Bearer <FLEETTICKETS_WEBHOOK_TOKEN>`, or the token alone.",
    )

    @app.post("/", summary="Take an event", responses=_ANSWERS, openapi_extra=_EVENT, dependencies=[Security(token)])
    @app.post("/events/", include_in_schema=False, dependencies=[Security(token)])
    @app.post(
        "/events", summary="Take an event", responses=_ANSWERS, openapi_extra=_EVENT, dependencies=[Security(token)]
    )
    async def take(request: Request) -> Response:
        await receiver.receive(request)
        return JSONResponse({"queued": True})

    @app.head("/events/", include_in_schema=False)
    @app.get("/events/", include_in_schema=False)
    @app.head("/events", include_in_schema=False)
    @app.get("/events", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    @app.get("/", summary="Answer a store's probe")
    async def probe() -> dict[str, str]:
        """Needs no token and asks nothing of the broker: a store may give a target up that does not answer this."""
        return {"service": "fleettickets webhook"}

    @app.get("/livez", summary="Whether it lives", response_class=PlainTextResponse)
    async def live() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", summary="Whether events can be taken", responses={503: {"description": "The reason."}})
    async def health() -> Response:
        try:
            outlet.require_broker()
        except NotConfirmed as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse("ok\n")

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.WEBHOOK), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)  # noqa: S101 - that is what it is registered for
        metrics.REFUSED.labels(refusal.reason).inc()
        client = request.client.host if request.client else ""
        trace = _trace(request)
        told = {"trace_id": trace.id} if trace else {}
        warnings.warn("refused", refusal.reason, status=refusal.status, detail=refusal.detail, client=client, **told)
        return JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)

    return http_limits.OneRequestEach(app)


async def serve(
    listening: socket.socket,
    broker: BrokerSettings,
    settings: WebhookSettings,
    stop: Event,
    pulse: Pulse,
    *,
    spans: Spans,
) -> None:
    """Receive events until SIGTERM or SIGINT, then finish the requests under way.

    `stop` is what the caller's handlers of these signals set; uvicorn passes the signals on to them at its end.
    Raises: Misconfigured, when the broker refuses us from the start.
    """
    absences = Absences()
    link = AsyncLink(broker, "webhook", settings.confirm_seconds, absences)
    metrics.show_absences(metrics.WEBHOOK_AWAY, absences, {"rabbitmq": channels.BROKER})
    metrics.WEBHOOK_CONNECTED.set_function(lambda: float(link.is_connected))
    warnings = Sparing()

    def refuse(reason: str, detail: str, client: str) -> None:
        metrics.REFUSED.labels(reason).inc()
        warnings.warn("ended", reason, detail=detail, client=client)

    limits = http_limits.Limits(
        Places(http_limits.connections()),
        BODY_SECONDS + settings.confirm_seconds + http_limits.STRANGER_SECONDS,
        refuse,
    )
    grace = int(settings.confirm_seconds) + RETRY_AFTER_SECONDS
    server = http_server.Server(application(link, settings, warnings, pulse, spans), limits, grace)

    def end(_running: "asyncio.Task[None]") -> None:
        server.should_exit = True

    running, telling = asyncio.create_task(link.run()), asyncio.create_task(_tell_now_and_then(warnings))
    running.add_done_callback(end)
    host, port = listening.getsockname()[:2]
    log.info("listening", host=host, port=port)
    await server.run_until(stop, listening, pulse)
    telling.cancel()
    warnings.tell()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    log.info("stopped")


async def _tell_now_and_then(warnings: Sparing) -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        warnings.tell()
