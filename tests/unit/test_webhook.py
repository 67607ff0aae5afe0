"""What the webhook receiver answers, without a broker."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from publisher.broker.publishing import Outgoing
from publisher.errors import Misconfigured, NotConfirmed
from publisher.log import Sparing
from publisher.metrics import WEBHOOK
from publisher.settings import WebhookSettings
from publisher.sources import http_server, webhook

TOKEN = "t0ken"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
LIMIT = 1000


class Broker:
    """Keeps what it is given, or fails with `reason`."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self.taken: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def require_broker(self) -> None:
        if self.reason:
            raise NotConfirmed(self.reason, "not now")

    async def publish(self, outgoing: Outgoing) -> None:
        self.require_broker()
        await self.may_answer.wait()
        self.taken.append(outgoing.body)


def client_of(broker: Broker, token: str = TOKEN) -> httpx.AsyncClient:
    settings = WebhookSettings.model_validate(
        {"FLEETTICKETS_WEBHOOK_TOKEN": token, "FLEETTICKETS_WEBHOOK_MAX_BYTES": LIMIT}
    )
    transport = httpx.ASGITransport(app=webhook.application(broker, settings, Sparing()))
    return httpx.AsyncClient(transport=transport, base_url="http://webhook")


def ask(broker: Broker, method: str, path: str, token: str = TOKEN, **request: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client_of(broker, token) as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


def counted(name: str, **labels: str) -> float:
    return WEBHOOK.get_sample_value(f"fleettickets_webhook_{name}_total", labels) or 0.0


@pytest.mark.parametrize("path", ["/", "/events", "/events/"])
@pytest.mark.parametrize("body", [b'{"Records": []}', b"no JSON", b"\xff\x00", b" ", b"x" * LIMIT])
def test_whatever_is_not_empty_reaches_the_broker_unchanged(path: str, body: bytes) -> None:
    broker = Broker()
    assert ask(broker, "POST", path, content=body, headers=RIGHT).status_code == 200
    assert broker.taken == [body]


@pytest.mark.parametrize(
    ("token", "header"),
    [
        (TOKEN, f"Bearer {TOKEN}"),
        (TOKEN, f"bearer  {TOKEN} "),
        (TOKEN, TOKEN),
        ("two words", "two words"),
        ("Bearer t0ken", "Bearer t0ken"),
    ],
)
def test_the_right_token_in_the_forms_that_stores_send(token: str, header: str) -> None:
    answer = ask(Broker(), "POST", "/", token, content=b"{}", headers={"Authorization": header})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "no token"),
        ("", "no token"),
        ("Bearer", "wrong token"),
        ("Bearer other", "wrong token"),
        (f"Basic {TOKEN}", "wrong token"),
        (f"{TOKEN}x", "wrong token"),
        (b"Bearer t\xf6ken", "wrong token"),
    ],
)
def test_a_missing_and_a_wrong_token_are_told_apart(header: str | bytes | None, words: str) -> None:
    broker, before = Broker(), counted("refused", reason="token")
    headers = {} if header is None else {b"Authorization": header}
    answer = ask(broker, "POST", "/", content=b"{}", headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert words in answer.json()["detail"]
    assert TOKEN not in answer.text
    assert broker.taken == []
    assert counted("refused", reason="token") == before + 1


def test_an_empty_body_is_said_to_be_empty() -> None:
    answer = ask(Broker(), "POST", "/", headers=RIGHT)
    assert answer.status_code == 422
    assert "empty" in answer.json()["detail"]


def test_a_body_over_the_limit_is_refused_before_it_is_whole() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * LIMIT:
            sent += LIMIT
            yield b"x" * LIMIT

    broker = Broker()
    answer = ask(broker, "POST", "/", content=endless(), headers=RIGHT)
    assert answer.status_code == 413
    assert "FLEETTICKETS_WEBHOOK_MAX_BYTES" in answer.json()["detail"]
    assert sent <= 3 * LIMIT
    assert ask(broker, "POST", "/", content=b"x" * (LIMIT + 1), headers=RIGHT).status_code == 413
    assert broker.taken == []


def test_a_body_that_is_announced_as_too_large_is_not_read() -> None:
    read = []

    async def told() -> AsyncIterator[bytes]:
        read.append("something")
        yield b"x"

    headers = RIGHT | {"Content-Length": str(LIMIT + 1)}
    assert ask(Broker(), "POST", "/", content=told(), headers=headers).status_code == 413
    assert read == []


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    assert ask(Broker(), "POST", "/", content=stuck(), headers=RIGHT).status_code == 408


@pytest.mark.parametrize("reason", ["away", "blocked", "nacked", "unroutable", "late", "busy"])
def test_what_the_broker_does_not_confirm_is_to_be_sent_again(reason: str) -> None:
    before = counted("refused", reason=reason)
    answer = ask(Broker(reason), "POST", "/", content=b"{}", headers=RIGHT)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "not now" in answer.json()["detail"]
    assert counted("refused", reason=reason) == before + 1


def test_more_events_than_are_taken_in_hand_at_once_are_to_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "UNCONFIRMED", 2)

    async def run() -> list[int]:
        broker = Broker()
        broker.may_answer.clear()
        async with client_of(broker) as client, asyncio.timeout(10):
            posts = [asyncio.create_task(client.post("/", content=b"{}", headers=RIGHT)) for _ in range(3)]
            await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            broker.may_answer.set()
            return sorted(answer.status_code for answer in await asyncio.gather(*posts))

    assert asyncio.run(run()) == [200, 200, 503]


def test_a_store_can_probe_without_a_token_even_while_the_broker_is_away() -> None:
    for method in ("HEAD", "GET"):
        for path in ("/", "/events", "/events/"):
            assert ask(Broker("away"), method, path).status_code == 200


def test_health_is_that_of_the_broker() -> None:
    assert ask(Broker(), "GET", "/readyz").status_code == 200
    unwell = ask(Broker("blocked"), "GET", "/readyz")
    assert unwell.status_code == 503
    assert "not now" in unwell.text


def test_the_api_page_says_what_the_answers_mean() -> None:
    api = ask(Broker(), "GET", "/openapi.json").json()
    assert api["paths"]["/"]["post"]["responses"].keys() == {"200", "401", "408", "413", "422", "503"}


def test_each_event_is_counted_once_whatever_becomes_of_it() -> None:
    received, confirmed, no_event = counted("received"), counted("confirmed"), counted("no_event")
    for content, broker in ((b'{"Records": []}', Broker()), (b"?", Broker()), (b"", Broker()), (b"{}", Broker("away"))):
        ask(broker, "POST", "/", content=content, headers=RIGHT)
    assert counted("received") - received == 4
    assert counted("confirmed") - confirmed == 2
    assert counted("no_event") - no_event == 1


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with http_server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            Misconfigured, match=rf"^cannot listen on 127\.0\.0\.1 port {port}: Address already in use$"
        ):
            http_server.listen("127.0.0.1", port)
    with pytest.raises(Misconfigured, match=r"^cannot listen on nowhere\.invalid port 80: "):
        http_server.listen("nowhere.invalid", 80)
