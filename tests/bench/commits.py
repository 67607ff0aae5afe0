"""When the COMMIT of which file was through, as another client is told: no time in a table can say that."""

import threading
import time
from typing import Self

import psycopg

from tests.stage.actor import Actor
from tests.stage.stage import Stage

_TELL = """
CREATE FUNCTION ingest.tell_applied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('applied', NEW.key);
    RETURN NULL;
END $$;
CREATE TRIGGER tell_applied AFTER UPDATE ON ingest.ledger
FOR EACH ROW WHEN (OLD.state <> 'applied' AND NEW.state = 'applied') EXECUTE FUNCTION ingest.tell_applied()"""
TELL_OF_ONE = "SELECT pg_notify('applied', %s)"
"""For who has no ledger."""


class Commits:
    """A thread that listens; `found` has the moment of each key."""

    def __init__(self, stage: Stage) -> None:
        self.found: dict[str, float] = {}
        self._url = stage.database
        self._stop = threading.Event()
        self._actor = Actor("commits", self._listen)
        stage.connection.execute(_TELL)

    def __enter__(self) -> Self:
        self._actor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._actor.join()

    def _listen(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("LISTEN applied")
            while not self._stop.is_set():
                for told in connection.notifies(timeout=0.5):
                    self.found.setdefault(told.payload, time.time())
