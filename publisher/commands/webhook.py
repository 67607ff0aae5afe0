"""`webhook`."""

import asyncio
from typing import Annotated

import typer

from publisher.commands.recording import recording
from publisher.health import tell_systemd
from publisher.heartbeat import ProcessKind, Pulse
from publisher.program import Known, stop_on_signals
from publisher.settings import (
    BrokerSettings,
    WebhookSettings,
    load,
    log_settings,
)


def webhook(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Receive the webhook of a store and hand its events to RabbitMQ.

    For stores that cannot publish to RabbitMQ themselves. An event is answered with 200 once the broker has it on
    disk; otherwise the store sends it again. Callers need FLEETTICKETS_WEBHOOK_TOKEN. SIGTERM finishes the requests
    under way.
    """
    # FastAPI takes half a second to import, which no other command should wait for.
    from publisher.sources.http_server import listen  # noqa: PLC0415
    from publisher.sources.webhook import serve  # noqa: PLC0415

    broker_settings, settings = load(BrokerSettings), load(WebhookSettings)
    stop = stop_on_signals()
    listening = listen(host, port)
    log_settings(broker_settings, settings)
    known: Known = context.obj
    pulse = Pulse()
    tell_systemd(pulse)
    with recording(ProcessKind.WEBHOOK) as spans, known.beating(ProcessKind.WEBHOOK, pulse):
        asyncio.run(serve(listening, broker_settings, settings, stop, pulse, spans=spans))
