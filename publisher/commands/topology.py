"""`topology`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from publisher.broker import channels, management, topology
from publisher.program import EXIT_FAILED, AsJson
from publisher.settings import (
    BrokerSettings,
    load,
)
from publisher.terminal import printable


def declare_topology(
    mqtt_topics: Annotated[
        list[str] | None,
        typer.Option(
            "--mqtt-topic",
            metavar="TOPIC",
            help="Also take what a store publishes on this MQTT topic; may be given more than once.",
        ),
    ] = None,
    only_check: Annotated[
        bool,
        typer.Option("--check", help="Declare nothing; say what is missing, different or not ours; exit 1 if any."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Declare the exchanges and queues on RabbitMQ.

    Safe to repeat. Stores publish to the exchange `fleettickets.events`, which must exist before they do. What the
    server has with other arguments is reported, with exit status 1, and left as it is. With RABBITMQ_MANAGEMENT_URL
    set, so is what it has under our prefix that is not declared here (status 1 only with --check).
    """
    settings = load(BrokerSettings)
    wanted = topology.bindings() + [topology.mqtt_binding(topic) for topic in mqtt_topics or []]
    late = channels.DECLARING_SECONDS
    with channels.confirming_channel(settings, "topology", limit=late) as channel, channels.translated_errors():
        outcome = topology.compare(channel) if only_check else topology.reconcile(channel, wanted)
    different, surplus = outcome.differences, []
    if settings.management_url:
        surplus = management.surplus(settings, wanted)
        if only_check:
            different += management.unbound(settings, wanted)
            different += management.overridden(settings)
    if as_json:
        names = {"declared": [] if only_check else outcome.agreed, "different": [asdict(found) for found in different]}
        typer.echo(json.dumps(names | {"undeclared": [asdict(found) for found in surplus]}))
    else:
        for found in different + surplus:
            typer.echo(printable(str(found)))
        agreed = f"{len(outcome.agreed)} exchanges and queues"
        done = f"{agreed} are as declared" if only_check else f"declared {agreed}"
        typer.echo(f"{done}; stores publish to exchange {topology.EVENTS}")
        if only_check and not settings.management_url:
            typer.echo("not looked at without RABBITMQ_MANAGEMENT_URL: bindings, and what is not declared here")
    if different or (only_check and surplus):
        raise typer.Exit(EXIT_FAILED)
