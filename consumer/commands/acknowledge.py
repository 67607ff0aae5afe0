"""`acknowledge`."""

import getpass
import json
import os
import socket
from typing import Annotated

import typer

from consumer import fail_points
from consumer.commands.served import served_feeds
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from consumer.upkeep import losses
from publisher.errors import Misconfigured
from publisher.program import AsJson, OfFeeds
from publisher.settings import BucketSettings, load
from publisher.store.bucket import Bucket
from publisher.terminal import printable


def acknowledge(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="As verify names them, or bare names.", show_default=False)
    ],
    reason: Annotated[str, typer.Option("--reason", help="What became of them; kept with who says so, and when.")],
    feed: OfFeeds = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge that objects are gone for good: verify counts them no more as lost, and tells why.

    Of a key every version is meant whose object the bucket does not have. Exit status 1, and nothing is kept, when one
    of the keys has none.
    """
    if not reason.strip():
        raise Misconfigured("--reason is empty: say what became of them")
    reached = fail_points.chosen(os.environ)
    bucket = Bucket(load(BucketSettings), served_feeds(feed).folders)
    bucket.require()
    with database.connect(load(DatabaseSettings), Role.INGEST, purpose="acknowledge") as connection:
        migrate.require_migrated(connection)
        lost = [loss for key in keys for loss in losses.lost_versions(connection, bucket, key)]
        by = f"{getpass.getuser()}@{socket.gethostname()}"
        losses.acknowledge(connection, bucket, lost, reason.strip(), by, reached)
    if as_json:
        typer.echo(json.dumps({"acknowledged": [loss.model_dump() for loss in lost]}))
        return
    for loss in lost:
        typer.echo(f"acknowledged {printable(loss.object_key)}")
