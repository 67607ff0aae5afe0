"""Promise 6: what was committed outlives a crash of the server, also where that is set not to wait for its log."""

from urllib.parse import quote

import pytest

from consumer.postgres import database as postgres
from consumer.postgres.database import Role
from consumer.settings import DatabaseSettings
from publisher.settings import load
from tests.conftest import Database

SHOW = "SHOW synchronous_commit"


@pytest.mark.promise("Nothing lost")
@pytest.mark.parametrize(("given", "used"), [("off", "on"), ("on", "on"), ("remote_apply", "remote_apply")])
def test_a_commit_waits_for_the_log(database: Database, given: str, used: str) -> None:
    url = f"{database.url}?options={quote(f'-c synchronous_commit={given}')}"
    settings = load(DatabaseSettings, database_url=url)
    with postgres.connect(settings, Role.INGEST) as connection:
        assert connection.execute(SHOW).fetchone() == {"synchronous_commit": used}
    with postgres.open_pool(settings, size=1) as pool, postgres.transaction(pool) as pooled:
        assert pooled.execute(SHOW).fetchone() == {"synchronous_commit": used}
