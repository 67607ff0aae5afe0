"""The publisher's commands, and how every command of the program ends: one line for an error, codes for cron."""

import _thread
import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import asdict
from threading import Event
from typing import Annotated, NoReturn

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from publisher import broker, broker_users, log, management, serving, topology
from publisher.bucket import Bucket
from publisher.errors import DependencyDown, FleetticketsError, HeldByAnother, Misconfigured
from publisher.poller import OpenSettled, Poll, Poller, knowing_nothing
from publisher.settings import (
    BrokerSettings,
    BrokerUsersSettings,
    BucketSettings,
    SqsSettings,
    WebhookSettings,
    WorkSettings,
    load,
)
from publisher.sqs import Batch, Bridge, SqsQueue
from publisher.terminal import printable

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2
_ENDLESS = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text for a person.")]


def run(program: typer.Typer, open_settled: OpenSettled = knowing_nothing) -> NoReturn:
    """Run a program of commands; an error of ours is one line on stderr, never a traceback.

    `open_settled` is what this program knows of waiting files beyond what the poller does.
    """
    log.configure()
    try:
        program(obj=open_settled)
    except Misconfigured as error:
        print(printable(f"fleettickets: {error}"), file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_MISCONFIGURED)
    except FleetticketsError as error:
        print(printable(f"fleettickets: {error}"), file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def console() -> Console:
    """A console that cuts and wraps nothing where a script or a pager reads."""
    return Console() if sys.stdout.isatty() else Console(width=_ENDLESS)


def progress(*, as_json: bool, in_bytes: bool = False) -> Progress:
    """A bar for work that takes long, where there is a terminal; beside JSON it goes to stderr."""
    on = Console(stderr=as_json)
    done = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    return Progress(*columns, console=on, transient=True, disable=not on.is_terminal)


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "unknown"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def stop_on_signals(*, second_aborts: bool = False) -> Event:
    """An event that SIGTERM and SIGINT set; for work that a person waits for, a second Ctrl-C does not wait for it.

    A handler may come in the middle of anything, of the event's own work too, whose lock it then must not wait for.
    """
    stop = Event()

    def set_stop(number: int, _frame: object) -> None:
        if second_aborts and number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        _thread.start_new_thread(stop.set, ())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, set_stop)
    return stop


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
    with broker.confirming_channel(settings, "topology") as channel, broker.translated_errors():
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


def make_broker_users(*, as_json: AsJson = False) -> None:
    """Make RabbitMQ's users for store, publishers, poller and consumer, with the rights that each needs and no others.

    Safe to repeat; a changed password is taken over. RABBITMQ_URL and RABBITMQ_MANAGEMENT_URL are an administrator's
    here, and the users' passwords are RABBITMQ_STORE_PASSWORD, RABBITMQ_PUBLISHER_PASSWORD (of webhook and sqs),
    RABBITMQ_POLLER_PASSWORD and RABBITMQ_CONSUMER_PASSWORD.
    """
    users = broker_users.make(load(BrokerUsersSettings))
    if as_json:
        typer.echo(json.dumps({"users": [asdict(user) for user in users]}))
        return
    for user in users:
        typer.echo(f"{user.name}: configure {user.configure} write {user.write} read {user.read}")


def poll(
    context: typer.Context,
    every: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Keep polling; without it, poll once, for cron."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Publish every key that still waits in changes/.

    The guarantee behind the notifications: what an event did not announce, this does. While a backlog is being worked
    off it publishes only what is missing from the queue, so it can run at any rate beside notifications. One poll runs
    at a time: a run of cron that meets another one, or the loop, says so and ends with 0.

    With DATABASE_URL set, what the ledger has set aside (dead letters, ignored and discarded files), or a retry will
    take up later, is not published again and again. A database that is away makes no difference to the rest.
    """
    broker_settings, bucket_settings, work = load(BrokerSettings), load(BucketSettings), load(WorkSettings)
    bucket = Bucket(bucket_settings)
    poller = Poller(bucket, work.prefetch, context.obj)
    if every is None:
        bucket.require()
        with broker.confirming_channel(broker_settings, "poll") as channel:
            with broker.translated_errors():
                topology.declare(channel)
            try:
                with broker.alone(channel, broker.POLL):
                    serving.claim_if_allowed(channel, bucket.name)
                    done = poller.poll(channel)
            except HeldByAnother:
                typer.echo("another poll is running, this one is not needed", err=True)
                done = None
        _report(done, as_json=as_json)
        return
    stop = stop_on_signals()
    with contextlib.suppress(DependencyDown):  # a store that is away now is waited for
        bucket.require()
    attempts = broker.Reconnecting(stop)
    try:
        for attempt in attempts:
            with attempt, broker.confirming_channel(broker_settings, "poller") as channel:
                with broker.translated_errors():
                    topology.declare(channel)
                with broker.alone(channel, broker.POLL):
                    serving.claim_if_allowed(channel, bucket.name)
                    attempts.held(attempt)
                    poller.poll_every(every, channel, stop, _log_poll)
    except FleetticketsError:
        if not stop.is_set():
            raise


def webhook(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
) -> None:
    """Receive the webhook of a store and hand its events to RabbitMQ.

    For stores that cannot publish to RabbitMQ themselves. An event is answered with 200 once the broker has it on
    disk; otherwise the store sends it again. Callers need FLEETTICKETS_WEBHOOK_TOKEN. SIGTERM finishes the requests
    under way.
    """
    # FastAPI takes half a second to import, which no other command should wait for.
    from publisher.webhook import listen, serve  # noqa: PLC0415

    broker_settings, settings = load(BrokerSettings), load(WebhookSettings)
    stop = stop_on_signals()
    asyncio.run(serve(listen(host, port), broker_settings, settings, stop))


def _report(done: Poll | None, *, as_json: bool) -> None:
    if as_json:
        none = {"waiting": None, "set_aside": None, "queued": None, "published": 0}
        typer.echo(json.dumps(asdict(done) if done else none))
    elif done:
        aside = f", set aside {done.set_aside}" if done.set_aside else ""
        typer.echo(f"waiting {done.waiting}{aside}, already queued {done.queued}, published {done.published}")


def _log_poll(done: Poll) -> None:
    structlog.get_logger().info("poll", **asdict(done))


def carry_from_sqs(
    once: Annotated[
        bool, typer.Option("--once", help="Carry over what is there and end, for cron; without it, run until SIGTERM.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Carry a bucket's notifications from an AWS SQS queue to the broker.

    A message is deleted from SQS only after the broker has confirmed it. A signal finishes the batch in hand and
    exits 0. Credentials and region come from AWS's own environment.
    """
    broker_settings, sqs_settings = load(BrokerSettings), load(SqsSettings)
    stop = stop_on_signals()
    with Bridge(SqsQueue(sqs_settings)) as bridge:
        if once:
            with broker.confirming_channel(broker_settings, "sqs") as channel:
                with broker.translated_errors():
                    topology.declare(channel)
                batch = bridge.drain(channel, stop)
            _report_batch(batch, as_json=as_json)
            return
        try:
            bridge.run(broker_settings, stop, _log_batch)
        except FleetticketsError:
            if not stop.is_set():
                raise
    structlog.get_logger().info("stopped")


def _report_batch(batch: Batch, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"published": batch.published, "deleted": batch.deleted}))
    else:
        typer.echo(f"published {batch.published}, deleted from SQS {batch.deleted}")
    if batch.deleted < batch.published:
        raise typer.Exit(EXIT_FAILED)


def _log_batch(batch: Batch) -> None:
    structlog.get_logger().info("sqs batch", published=batch.published, deleted=batch.deleted)


def add_commands(program: typer.Typer) -> None:
    """Add the publisher's commands to a program."""
    program.command("topology")(declare_topology)
    program.command("broker-users")(make_broker_users)
    program.command("poll")(poll)
    program.command("webhook")(webhook)
    program.command("sqs")(carry_from_sqs)
