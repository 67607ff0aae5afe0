"""The publisher's commands, and how every command of the program ends: one line for an error, codes for cron."""

import asyncio
import json
import signal
import sys
from threading import Event
from typing import Annotated, NoReturn

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from publisher import broker, dead_letters, log, topology
from publisher.bucket import Bucket
from publisher.dead_letters import DeadLetter, Selection
from publisher.errors import DependencyDown, FleetticketsError, HeldByAnother, Misconfigured
from publisher.poller import Poll, Poller
from publisher.settings import BrokerSettings, BucketSettings, WebhookSettings, WorkSettings, load
from publisher.topology import Queue

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2
_ENDLESS = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of text for a person.")]


def run(program: typer.Typer) -> NoReturn:
    """Run a program of commands; an error of ours is one line on stderr, never a traceback."""
    try:
        program()
    except Misconfigured as error:
        print(f"fleettickets: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_MISCONFIGURED)
    except FleetticketsError as error:
        print(f"fleettickets: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def console() -> Console:
    """A console that cuts and wraps nothing where a script or a pager reads."""
    return Console() if sys.stdout.isatty() else Console(width=_ENDLESS)


def printable(text: str) -> str:
    """The text with its control characters spelled out: what strangers wrote must not steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def stop_on_signals() -> Event:
    """An event that SIGTERM and SIGINT set."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def declare_topology(as_json: AsJson = False) -> None:
    """Declare the exchanges and queues on RabbitMQ.

    Safe to repeat. Stores publish to the exchange `fleettickets.events`, which must exist before they do.
    """
    with broker.confirming_channel(load(BrokerSettings), "topology") as channel:
        declared = topology.declare(channel)
    if as_json:
        typer.echo(json.dumps({"declared": declared}))
    else:
        typer.echo(f"declared {len(declared)} exchanges and queues; stores publish to exchange {topology.EVENTS}")


def poll(
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
    """
    broker_settings, bucket_settings, work = load(BrokerSettings), load(BucketSettings), load(WorkSettings)
    log.configure()
    bucket = Bucket(bucket_settings)
    poller = Poller(bucket, work.prefetch)
    if every is None:
        bucket.require()
        with broker.confirming_channel(broker_settings, "poll") as channel:
            topology.declare(channel)
            try:
                with broker.alone(channel, "poll"):
                    done = poller.poll(channel)
            except HeldByAnother:
                typer.echo("another poll is running, this one is not needed", err=True)
                return
        _report(done, as_json=as_json)
        return
    stop = stop_on_signals()
    try:
        for attempt in broker.reconnecting(stop):
            with attempt, broker.confirming_channel(broker_settings, "poller") as channel:
                topology.declare(channel)
                with broker.alone(channel, "poll"):
                    attempt.retry_state.attempt_number = 1
                    poller.poll_every(every, channel, stop, _log_poll)
    except DependencyDown:
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
    log.configure()
    stop = stop_on_signals()
    asyncio.run(serve(listen(host, port), broker_settings, settings, stop))


def _report(done: Poll, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"waiting": done.waiting, "queued": done.queued, "published": done.published}))
    else:
        typer.echo(f"waiting {done.waiting}, already queued {done.queued}, published {done.published}")


def _log_poll(done: Poll) -> None:
    structlog.get_logger().info("poll", waiting=done.waiting, queued=done.queued, published=done.published)


def _show_letter(letter: DeadLetter) -> dict[str, object]:
    return {
        "queue": letter.queue.value,
        "number": letter.number,
        "key": letter.key,
        "reason": letter.reason,
        "error": letter.error,
        "group": letter.fingerprint,
        "attempts": letter.attempts,
        "dead_at": letter.dead_at,
    }


letters = typer.Typer(help="Look at dead letters and send them back.", no_args_is_help=True)
OfQueue = Annotated[Queue, typer.Option("--queue", help="Whose dead letters.")]
OfKey = Annotated[str | None, typer.Option("--key", help="Only those of this key of the bucket.")]
OfGroup = Annotated[str | None, typer.Option("--group", help="Only those with this fingerprint of the reason.")]


@letters.command("list")
def list_letters(
    queue: OfQueue = Queue.FILES, key: OfKey = None, group: OfGroup = None, as_json: AsJson = False
) -> None:
    """List dead letters, oldest first. Nothing is taken out of the queue."""
    chosen = Selection(key, group)
    with (
        broker.confirming_channel(load(BrokerSettings), "dead letters") as channel,
        dead_letters.browsing(channel, queue) as held,
    ):
        found = [letter for letter in held if chosen.holds(letter)]
    if as_json:
        typer.echo(json.dumps([_show_letter(letter) for letter in found]))
        return
    if not found:
        typer.echo(f"no dead letters in {queue.dead_letters}")
        return
    table = Table("no.", "dead since", "group", "attempts", "reason", "key", box=None)
    for letter in found:
        table.add_row(
            str(letter.number), letter.dead_at[:19], letter.fingerprint, str(letter.attempts),
            escape(printable(letter.reason)), escape(printable(letter.key or "(no key)")),
        )  # fmt: skip
    console().print(table)


@letters.command("show")
def show_letter(
    number: Annotated[int, typer.Argument(min=1, help="Its number in `dead-letters list`.")],
    queue: OfQueue = Queue.FILES,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter whole: reason, headers, body."""
    with (
        broker.confirming_channel(load(BrokerSettings), "dead letters") as channel,
        dead_letters.browsing(channel, queue) as held,
    ):
        letter = next((found for found in held if found.number == number), None)
    if letter is None:
        raise Misconfigured(
            f"no dead letter number {number} in {queue.dead_letters}; see: fleettickets dead-letters list"
        )
    headers = {name: str(value) for name, value in letter.headers.items()}
    shown = _show_letter(letter) | {"headers": headers, "body": letter.body.decode(errors="backslashreplace")}
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        if name != "headers":
            typer.echo(f"{name:9} {printable(str(value))}")
    for name, value in headers.items():
        typer.echo(f"header    {printable(f'{name}: {value}')}")


@letters.command("replay")
def replay_letters(
    queue: OfQueue = Queue.FILES,
    key: OfKey = None,
    group: OfGroup = None,
    every_letter: Annotated[bool, typer.Option("--all", help="Replay all of the queue's dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their work queue, to be tried afresh.

    Each is published and confirmed before it leaves the dead letters, so an interruption loses none.
    """
    if not (every_letter or key or group):
        raise Misconfigured("say which: --key, --group or --all")
    replayed: list[dict[str, object]] = []
    with broker.confirming_channel(load(BrokerSettings), "replay") as channel:
        topology.declare(channel)
        dead_letters.replay(channel, queue, Selection(key, group), lambda letter: replayed.append(_show_letter(letter)))
    if as_json:
        typer.echo(json.dumps({"replayed": replayed}))
    else:
        for letter in replayed:
            typer.echo(f"replayed {printable(str(letter['key'] or letter['number']))}")
        typer.echo(f"{len(replayed)} replayed")


def add_commands(program: typer.Typer) -> None:
    """Add the publisher's commands to a program."""
    program.command("topology")(declare_topology)
    program.command("poll")(poll)
    program.command("webhook")(webhook)
    program.add_typer(letters, name="dead-letters")
