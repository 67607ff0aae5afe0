"""A service that was away and is back is one line of the log, in every process that runs for long."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.test_api import TOKEN, served
from tests.acceptance.test_health import Watched
from tests.doubles.geocoder import KEY, LocationIQ
from tests.doubles.proxy import Proxy
from tests.doubles.receiver import Receiver
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until

POSTGRES, RABBITMQ, STORE, GEOCODER = "postgres", "rabbitmq", "the bucket's store", "the geocoder"
SETTINGS = {
    POSTGRES: "DATABASE_URL", RABBITMQ: "RABBITMQ_URL", STORE: "RUSTFS_ENDPOINT", GEOCODER: "GEOCODER_URL",
}  # fmt: skip


class Services:
    """All that a process needs, each by way of a proxy that can take it away."""

    def __init__(self, stage: Stage, geocoder: str, opened: ExitStack) -> None:
        urls = {name: stage.environment.get(setting, geocoder) for name, setting in SETTINGS.items()}
        self.proxies = {name: opened.enter_context(Proxy(url)) for name, url in urls.items()}
        self.environment = {SETTINGS[name]: proxy.url for name, proxy in self.proxies.items()}
        self.environment |= {"GEOCODER_API_KEY": KEY, "GEOCODER_PER_SECOND": "50", "GEOCODER_PER_MINUTE": "1000"}


@pytest.fixture
def behind(stage: Stage) -> Iterator[Services]:
    places = {"Westlands": (-1.2676, 36.8108), "Karen": (-1.3197, 36.7073)}
    with LocationIQ(places, per_second=None, per_minute=None) as provider, ExitStack() as opened:
        yield Services(stage, provider.url, opened)


def told(process: Process) -> list[str]:
    """What each line of it says that is about something that is back, without the seconds."""
    lines = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    details = [line["detail"] for line in lines if line["event"] == "back"]
    assert all(re.fullmatch(r".+ is back after [0-9.]+ s", detail) for detail in details), details
    return [detail.partition(" is back")[0] for detail in details]


def waits_for(process: Process, service: str) -> None:
    wait_until(lambda: f"{service} is not available" in process.output(), f"it waits for {service}")


@pytest.mark.parametrize("service", SETTINGS)
def test_a_consumer_says_once_that_a_service_is_back(stage: Stage, behind: Services, service: str) -> None:
    consumer = stage.start("consume", **behind.environment)
    first = key_at(0)
    stage.bucket.put(first, csv([ticket("INC0", cluster="Karen")]))
    stage.announce(first)
    stage.wait_for("done", first)
    open_requests = "SELECT count(*) FROM ingest.outbox WHERE handled_at IS NULL"
    wait_until(lambda: stage.one(open_requests) == 0, "nothing is left to do")
    behind.proxies[service].refuse()
    keys = [key_at(minutes) for minutes in range(1, 7)]
    for key in keys:
        stage.bucket.put(key, csv([ticket("INC1", cluster="Westlands", latitude="", longitude="")]))
    stage.announce(*keys)
    waits_for(consumer, service)
    assert told(consumer) == []
    behind.proxies[service].restore()
    stage.wait_for("done", *keys)
    wait_until(lambda: stage.one(open_requests) == 0, "each follow-on is done")
    wait_until(lambda: told(consumer) == [service], f"one line of {service}, and not {told(consumer)}")
    consumer.stop()
    assert told(consumer) == [service]


def test_a_consumer_that_has_no_work_any_more_is_ready_again(stage: Stage, behind: Services) -> None:
    consumer = Watched(stage, **behind.environment)
    open_requests = "SELECT count(*) FROM ingest.outbox WHERE handled_at IS NULL"
    behind.proxies[GEOCODER].refuse()
    key = key_at(0)
    stage.bucket.put(key, csv([ticket("INC0", cluster="Karen", latitude="", longitude="")]))
    stage.announce(key)
    stage.wait_for("done", key)
    wait_until(lambda: consumer.get("readyz").startswith("503 away: the geocoder"), "it cannot ask for the place")
    behind.proxies[GEOCODER].restore()
    wait_until(lambda: stage.one(open_requests) == 0, "the place is known")
    wait_until(lambda: consumer.get("readyz") == "200 ok", "no file has to come for that", 5)
    assert consumer.sample("fleettickets_paused") == 0
    consumer.process.stop()


def test_a_consumer_without_work_finds_out_by_itself(stage: Stage, behind: Services) -> None:
    consumer = Watched(stage, **behind.environment)
    wait_until(lambda: "consuming" in consumer.process.output(), "it works")
    behind.proxies[POSTGRES].refuse()
    wait_until(lambda: '"event": "sweep"' in consumer.process.output(), "only its sweep needs the database")
    assert consumer.sample("fleettickets_away", service="postgres") == 1
    behind.proxies[POSTGRES].restore()
    wait_until(lambda: told(consumer.process) == [POSTGRES], "and long before the next sweep", 30)
    assert consumer.sample("fleettickets_away") == 0
    consumer.process.stop()


def test_a_consumer_that_begins_before_its_database_says_when_it_is_there(stage: Stage, behind: Services) -> None:
    behind.proxies[POSTGRES].refuse()
    consumer = stage.start("consume", **behind.environment)
    waits_for(consumer, POSTGRES)
    behind.proxies[POSTGRES].restore()
    wait_until(lambda: told(consumer) == [POSTGRES], "it goes on")
    consumer.stop()


def test_a_poller_says_so_of_broker_and_store_and_of_the_database_that_it_does_without(
    stage: Stage, behind: Services
) -> None:
    poller = stage.start("poll", "--every", "0.2", **behind.environment)
    wait_until(lambda: '"event": "poll"' in poller.output(), "it polls")
    for service in (RABBITMQ, STORE, POSTGRES):
        before = told(poller)
        behind.proxies[service].refuse()
        waits_for(poller, service)
        behind.proxies[service].restore()
        wait_until(lambda: told(poller) == [*before, service], f"one line of {service}")  # noqa: B023 - used at once
    poller.stop()
    assert told(poller) == [RABBITMQ, STORE, POSTGRES]
    assert "heartbeat" not in poller.output() or "heartbeat again" in poller.output()


def test_a_receiver_says_so_of_its_broker(stage: Stage, behind: Services) -> None:
    receiver = Receiver(stage, RABBITMQ_URL=behind.proxies[RABBITMQ].url)
    receiver.wait()
    behind.proxies[RABBITMQ].refuse()
    waits_for(receiver.process, RABBITMQ)
    behind.proxies[RABBITMQ].restore()
    wait_until(lambda: told(receiver.process) == [RABBITMQ], "one line")
    receiver.process.stop()
    assert told(receiver.process) == [RABBITMQ]


def test_the_api_says_so_of_its_database(stage: Stage, behind: Services) -> None:
    with served(stage, DATABASE_URL=behind.proxies[POSTGRES].url, FLEETTICKETS_API_TOKENS=TOKEN) as api:
        (process,) = stage.processes
        assert api.get("/readyz").status_code == 200
        behind.proxies[POSTGRES].refuse()
        wait_until(lambda: api.get("/readyz").status_code == 503, "it cannot answer")
        behind.proxies[POSTGRES].restore()
        wait_until(lambda: api.get("/readyz").status_code == 200, "it answers again")
        wait_until(lambda: told(process) == [POSTGRES], "one line")
    assert told(process) == [POSTGRES]
