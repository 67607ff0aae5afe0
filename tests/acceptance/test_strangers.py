"""A thousand strangers at the receiver's port, and a store that gets in: real process, real broker, real sockets."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.doubles import strangers
from tests.doubles.receiver import RIGHT, Receiver
from tests.stage.broker import FILES
from tests.stage.stage import Stage, wait_until

THOUSAND = 1050
POSTS = 20


@pytest.fixture
def receiver(shared_stage: Stage) -> Iterator[Receiver]:
    shared_stage.broker.purge()
    started = Receiver(shared_stage)
    started.wait()
    yield started
    started.process.stop()


def queued(stage: Stage) -> list[bytes]:
    return [message.body for message in stage.broker.messages(FILES)]


def refused(receiver: Receiver) -> float:
    """Strangers that were too many, or too slow."""
    return sum(receiver.counted(f'refused_total{{reason="{reason}"}}') for reason in ("connections", "slow"))


@pytest.mark.parametrize(
    ("manners", "addresses"),
    [
        (("a byte after the 401",), 1),
        (tuple(strangers.MANNERS), 1),
        (tuple(strangers.MANNERS), 20),
    ],
)
def test_every_post_of_a_store_is_taken_beside_a_thousand_strangers(
    shared_stage: Stage, receiver: Receiver, manners: tuple[str, ...], addresses: int
) -> None:
    with strangers.Crowd(receiver.port, THOUSAND, strangers.addresses(addresses), manners):
        with requests.Session() as kept:
            for number in range(POSTS):
                assert receiver.post(f"{number} on its own".encode()).status_code == 200
                again = kept.post(receiver.url, data=f"{number} kept".encode(), headers=RIGHT, timeout=30)
                assert again.status_code == 200
        assert requests.head(receiver.url, timeout=30).status_code == 200
        assert receiver.healthy()
        # The store's posts can all be through before the first stranger's time is up.
        wait_until(lambda: refused(receiver) > 0, "strangers are refused")
    assert len(queued(shared_stage)) == 2 * POSTS
    wait_until(lambda: len(list(Path(f"/proc/{receiver.process.pid}/fd").iterdir())) < 40, "all strangers are gone")
    told = [json.loads(line) for line in receiver.process.output().splitlines()]
    assert any(line.get("reason") == "token" for line in told)
    assert not [line for line in told if "exception" in line], "whatever a stranger does is no bug of ours"
    assert len(told) < 30, "a flood of them is no flood of lines"


def test_few_descriptors_are_enough_for_the_store(shared_stage: Stage) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    shared_stage.executes = True  # a fork would not have this limit from us
    try:
        receiver = Receiver(shared_stage)
    finally:
        shared_stage.executes = False
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    receiver.wait()
    with strangers.Crowd(receiver.port, 400, strangers.addresses(20), ("a byte after the 401",)):
        for number in range(POSTS):
            assert receiver.post(str(number).encode()).status_code == 200
    assert "out of system resource" not in receiver.process.output()
    receiver.process.stop()


def test_no_page_sends_a_browser_to_another_host(receiver: Receiver) -> None:
    for path in ("/", "/docs", "/redoc", "/openapi.json", "/readyz", "/metrics", "/nowhere"):
        answer = requests.get(f"{receiver.url}{path}", timeout=10)
        assert answer.status_code == (404 if path in {"/docs", "/redoc", "/nowhere"} else 200)
        assert "://" not in answer.text
        assert answer.headers["Connection"] == "close"


def test_refusals_are_told_once_and_then_as_a_number(receiver: Receiver) -> None:
    for _ in range(50):
        assert receiver.post(b"{}", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert receiver.counted('refused_total{reason="token"}') == 50
    ended = receiver.process
    ended.terminate()
    assert ended.wait() == 0
    lines = [json.loads(line) for line in ended.output().splitlines()]
    first, rest = (line for line in lines if line.get("reason") == "token")
    assert "wrong token" in first["detail"]
    assert (rest["more"], rest["client"]) == (49, "127.0.0.1")
