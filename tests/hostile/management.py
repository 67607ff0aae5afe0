"""RabbitMQ by its management API: users, policies, connections, and letters whose headers no client can read."""

import base64
import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from tests.stage.broker import Broker, Message

_MOST = 100_000


def user(broker: Broker, name: str, *, write: str) -> Broker:
    """The same virtual host for a new user, who may write to what the pattern names, and do nothing else."""
    _call(broker, "PUT", f"users/{name}", {"password": name, "tags": ""})
    _call(broker, "PUT", f"permissions/{broker.vhost}/{name}", {"configure": "^$", "write": write, "read": "^$"})
    address = urlsplit(broker.url)
    host = address.netloc.rpartition("@")[2]
    return Broker(address._replace(netloc=f"{name}:{name}@{host}").geturl(), None)


@contextlib.contextmanager
def full(broker: Broker, queue: str) -> Iterator[None]:
    """A queue that takes next to nothing and refuses the rest."""
    _limit(broker, queue, 1)
    try:
        yield
    finally:
        # RabbitMQ 3.10 tells those whom it refused of more room, and not of a limit that is gone: what it dead-letters
        # itself would stay refused for good.
        _limit(broker, queue, 1_000_000)


def _limit(broker: Broker, queue: str, messages: int) -> None:
    limit = {"max-length": messages, "overflow": "reject-publish"}
    policy = {"pattern": f"^{queue}$".replace(".", "\\."), "definition": limit, "apply-to": "queues"}
    _call(broker, "PUT", f"policies/{broker.vhost}/limit-{queue}", policy)


def cut_connections(broker: Broker) -> None:
    """End every connection from the server's side."""
    for connection in _call(broker, "GET", "connections").json():
        with contextlib.suppress(requests.HTTPError):  # some have left
            _call(broker, "DELETE", f"connections/{quote(connection['name'], safe='')}")


def held(broker: Broker, queue: str) -> int:
    """Messages that are ready or in somebody's hands; not those that the server itself is about to dead-letter."""
    counted = _call(broker, "GET", f"queues/{broker.vhost}/{queue}").json()
    return int(counted.get("messages_ready", 0)) + int(counted.get("messages_unacknowledged", 0))


def all_held(broker: Broker) -> dict[str, int]:
    """What every queue holds that is not empty, with what the server itself has in hand."""
    queues = _call(broker, "GET", f"queues/{broker.vhost}").json()
    return {queue["name"]: queue["messages"] for queue in queues if queue.get("messages")}


def messages(broker: Broker, queue: str) -> list[Message]:
    """What waits in the queue, which goes back to it. The server itself reads the headers."""
    asked = {"count": _MOST, "ackmode": "ack_requeue_true", "encoding": "base64"}
    found: list[dict[str, Any]] = _call(broker, "POST", f"queues/{broker.vhost}/{queue}/get", asked).json()
    return [
        Message(one["properties"].get("headers") or {}, base64.b64decode(one["payload"]))
        if one["payload_encoding"] == "base64"
        else Message(one["properties"].get("headers") or {}, one["payload"].encode())
        for one in found
    ]


def _call(broker: Broker, method: str, path: str, body: Any = None) -> requests.Response:
    answer = requests.request(method, f"{broker.management}/api/{path}", json=body, timeout=60)
    answer.raise_for_status()
    return answer
