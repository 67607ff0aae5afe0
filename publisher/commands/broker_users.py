"""`broker-users`."""

import json
from dataclasses import asdict

import typer

from publisher.broker import broker_users
from publisher.program import AsJson
from publisher.settings import (
    BrokerUsersSettings,
    load,
)


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
