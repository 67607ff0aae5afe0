"""How every command that runs for long says that it lives."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import structlog

from consumer.postgres import heartbeats
from consumer.postgres.heartbeats import Beater
from consumer.settings import DatabaseChoice, DatabaseSettings, HeartbeatSettings
from publisher.errors import Misconfigured
from publisher.heartbeat import ProcessKind, Pulse
from publisher.settings import load


def beating(
    kind: ProcessKind, pulse: Pulse, *, feeds: Sequence[str] = (), queues: Sequence[str] = ()
) -> AbstractContextManager[None]:
    """Into the database, where there is one to beat into; whatever is wrong with that is no reason to end."""
    try:
        if not load(DatabaseChoice).is_made:
            return nullcontext()
        settings, seconds = load(DatabaseSettings), load(HeartbeatSettings).seconds
    except Misconfigured as error:
        structlog.get_logger().info("no heartbeat", detail=str(error))
        return nullcontext()
    return heartbeats.beating(settings, seconds, Beater(kind, pulse, feeds, queues))
