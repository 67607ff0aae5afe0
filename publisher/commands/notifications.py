"""The command `notifications`: what the bucket announces, what it should, and setting that."""

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from publisher.errors import FleetticketsError, Misconfigured
from publisher.program import EXIT_FAILED, AsJson, Known, OfFeeds
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store import notifications
from publisher.store.notifications import Notifications, Plan, RustfsWay


class Store(StrEnum):
    """Stores that publish on the broker themselves."""

    CEPH = "ceph"
    RUSTFS = "rustfs"


def set_notifications(
    context: typer.Context,
    *,
    store: Annotated[Store | None, typer.Option("--store", help="A store that publishes on RabbitMQ itself.")] = None,
    way: Annotated[
        RustfsWay | None, typer.Option("--by", help="RustFS's way to us; without it, amqp.", show_default=False)
    ] = None,
    arn: Annotated[
        str | None, typer.Option("--arn", help="A queue or topic that the store knows already, like AWS's SQS queue.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Set it; without this, only show.")] = False,
    make_bucket: Annotated[
        bool, typer.Option("--make-bucket", help="With --apply: make the bucket if there is none.")
    ] = False,
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Show what the bucket announces and what it should, and with --apply set that.

    One rule for each feed, for objects created in its changes/; other rules of the bucket stay. Exit status 1 when they
    are not in place.
    For RustFS it first shows the environment that its server needs, and the rule with its ARN, also while the store is
    away; the rule is taken once the server runs with that environment.
    """
    bucket_settings = load(BucketSettings)
    known: Known = context.obj
    bucket = Notifications(bucket_settings, known.folders(feed or ()))
    by_hand, read = _asked(bucket, bucket_settings, store, way, arn)
    if not as_json:
        _print_by_hand(by_hand)
    try:
        if make_bucket and apply:
            bucket.make_bucket()
        plan = read()
        if apply:
            bucket.apply(plan)
            plan = read()
    except FleetticketsError:
        if as_json and by_hand:
            typer.echo(json.dumps(by_hand | {"in_place": None}))
        raise
    shown = notifications.describe(plan)
    if as_json:
        typer.echo(json.dumps(shown | by_hand | {"in_place": plan.in_place}))
    else:
        for name, value in shown.items():
            typer.echo(f"{name}: {json.dumps(value, indent=2)}")
        typer.echo("in place" if plan.in_place else "not in place" if apply else "not in place; to set it: --apply")
    if not plan.in_place:
        raise typer.Exit(EXIT_FAILED)


def _asked(
    bucket: Notifications, settings: BucketSettings, store: Store | None, way: RustfsWay | None, arn: str | None
) -> tuple[dict[str, Any], Callable[[], Plan]]:
    """What the operator sets up on the server by hand, which is of use before it can be asked; and how to ask it."""
    match store, way, arn:
        case Store.CEPH, None, None:
            return {}, partial(bucket.plan_for_ceph, load(BrokerSettings))
        case Store.RUSTFS, _, None:
            way = way or RustfsWay.AMQP
            broker = None if way is RustfsWay.WEBHOOK else load(BrokerSettings)
            environment, target = notifications.rustfs_target(way, settings, broker)
            by_hand = {"environment": environment, "arn": target, "rule": bucket.wanted_for(target)}
            return by_hand, partial(bucket.plan_for_arn, target)
        case None, None, str():
            return {}, partial(bucket.plan_for_arn, arn)
        case _:
            raise Misconfigured("say which: --store ceph, --store rustfs (with --by, amqp if not said) or --arn ARN")


def _print_by_hand(by_hand: dict[str, Any]) -> None:
    for name, value in by_hand.get("environment", {}).items():
        typer.echo(f"{name}={value}")
    if by_hand:
        typer.echo(f"arn: {by_hand['arn']}\nrule: {json.dumps(by_hand['rule'], indent=2)}")
