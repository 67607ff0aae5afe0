"""`sqs`."""

import json
from functools import partial
from typing import Annotated

import structlog
import typer

from publisher import metrics
from publisher.absences import Absences
from publisher.broker import channels
from publisher.commands.recording import recording
from publisher.errors import FleetticketsError
from publisher.health import Health, show, tell_systemd
from publisher.heartbeat import ProcessKind, Pulse
from publisher.program import EXIT_FAILED, AsJson, Known, MetricsAt, stop_on_signals
from publisher.settings import (
    BrokerSettings,
    SqsSettings,
    load,
    log_settings,
)
from publisher.sources.sqs import SQS, Bridge, Carried, SqsQueue


def carry_from_sqs(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Carry over what is there and end, for cron; without it, run until SIGTERM.")
    ] = False,
    metrics_at: MetricsAt = None,
    as_json: AsJson = False,
) -> None:
    """Carry a bucket's notifications from an AWS SQS queue to the channels.

    A message is deleted from SQS only after the broker has confirmed it. A signal finishes the batch in hand and
    exits 0. Credentials and region come from AWS's own environment.
    """
    broker_settings, sqs_settings = load(BrokerSettings), load(SqsSettings)
    stop = stop_on_signals()
    known: Known = context.obj
    pulse, absences = Pulse(), Absences()
    with recording(ProcessKind.SQS) as spans, Bridge(SqsQueue(sqs_settings), pulse, spans) as bridge:
        if once:
            with channels.declared_channel(broker_settings, "sqs") as channel:
                batch = bridge.drain(channel, stop)
            _report_batch(batch, as_json=as_json)
            return
        tell_systemd(pulse)
        if metrics_at is not None:
            metrics.show_absences(metrics.BRIDGE_AWAY, absences, {"rabbitmq": channels.BROKER, "sqs": SQS})
            show(metrics_at, metrics.BRIDGE, Health(pulse))
        try:
            with known.beating(ProcessKind.SQS, pulse):
                bridge.run(
                    broker_settings,
                    stop,
                    absences,
                    begun=partial(log_settings, broker_settings, sqs_settings),
                    report=_log_batch,
                )
        except FleetticketsError:
            if not stop.is_set():
                raise
    structlog.get_logger().info("stopped")


def _report_batch(batch: Carried, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"published": batch.published, "deleted": batch.deleted}))
    else:
        typer.echo(f"published {batch.published}, deleted from SQS {batch.deleted}")
    if batch.deleted < batch.published:
        raise typer.Exit(EXIT_FAILED)


def _log_batch(batch: Carried) -> None:
    metrics.SQS_PUBLISHED.inc(batch.published)
    metrics.SQS_DELETED.inc(batch.deleted)
    structlog.get_logger().info("sqs batch", published=batch.published, deleted=batch.deleted)
