"""`serve`."""

import asyncio
from contextlib import suppress
from typing import Annotated

import typer

from consumer.commands.beating import beating
from consumer.commands.served import served_feeds
from consumer.postgres import database, migrate
from consumer.postgres.database import Role
from consumer.settings import ApiSettings, DatabaseSettings
from publisher.errors import DependencyDown
from publisher.health import tell_systemd
from publisher.heartbeat import ProcessKind, Pulse
from publisher.program import stop_on_signals
from publisher.settings import load, log_settings

_PATIENCE_SECONDS = 5
"""For the look at the database before it begins."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8090,
) -> None:
    """Serve the tickets over HTTP, as GeoJSON and JSON, for maps and dashboards.

    Needs DATABASE_URL alone, and reads with the rights of a reader. Whoever asks shows one of
    FLEETTICKETS_API_TOKENS as `Authorization: Bearer …`; without tokens only this machine may ask. An answer has an
    ETag that stands for as long as nothing has changed; /api/events tells what changes, as it does. /openapi.json
    describes what can be asked; SIGTERM finishes the requests under way.
    """
    # FastAPI takes half a second to import, which no other command should wait for.
    from consumer.api.access import require_tokens  # noqa: PLC0415
    from consumer.api.server import serve as answer  # noqa: PLC0415
    from publisher.sources.http_server import listen  # noqa: PLC0415

    database_settings, settings, feeds = load(DatabaseSettings), load(ApiSettings), served_feeds(None)
    require_tokens(settings.tokens, host)
    stop = stop_on_signals()
    listening = listen(host, port)
    # A database that is away, or not migrated yet, is waited for.
    with (
        suppress(DependencyDown),
        database.connect(database_settings, Role.READ, purpose="api", patience=_PATIENCE_SECONDS) as connection,
    ):
        migrate.require_not_ahead(connection)
    log_settings(database_settings, settings)
    # One more for the health, and two for who follows the changes: neither waits for those who ask.
    connections = settings.connections + 3
    pool = database.open_reading_pool(database_settings, connections, "api", settings.answer_seconds)
    pulse = Pulse()
    tell_systemd(pulse)
    with beating(ProcessKind.SERVE, pulse, feeds=[feed.name for feed in feeds.served]), pool as opened:
        asyncio.run(answer(listening, opened, feeds, settings, stop, pulse))
