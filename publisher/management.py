"""RabbitMQ's management API, for what AMQP cannot tell: what a virtual host holds beside what one asks for by name."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests

from publisher import topology
from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import BrokerSettings
from publisher.topology import PREFIX, Binding, Difference

_API = "rabbitmq's management API"
_LOOK = "not of this version; look what it is for, and delete it on the server if nobody needs it"


def surplus(settings: BrokerSettings) -> list[Difference]:
    """Exchanges and queues under our prefix that the topology does not have.

    Raises: DependencyDown, Misconfigured.
    """
    ours = {(declared.kind, declared.name) for declared in topology.declarations()}
    return [
        Difference(kind, found["name"], "undeclared", _LOOK)
        for kind, path in (("exchange", "exchanges"), ("queue", "queues"))
        for found in _get(settings, path)
        if found["name"].startswith(PREFIX) and (kind, found["name"]) not in ours
    ]


def unbound(settings: BrokerSettings, wanted: list[Binding]) -> list[Difference]:
    """Bindings that are wanted and missing.

    Raises: DependencyDown, Misconfigured.
    """
    there = {(found["source"], found["destination"], found["routing_key"]) for found in _get(settings, "bindings")}
    return [
        Difference("binding", str(binding), "missing", "run: fleettickets topology")
        for binding in wanted
        if (binding.exchange, binding.queue, binding.key) not in there
    ]


def _get(settings: BrokerSettings, path: str) -> list[dict[str, Any]]:
    """List one kind of thing in the virtual host of RABBITMQ_URL, with its user where the API's URL names none."""
    broker_url = urlsplit(settings.rabbitmq_url.get_secret_value())
    url = urlsplit(settings.management_url.get_secret_value() if settings.management_url else "")
    login = url if url.username else broker_url
    host = url.netloc.rpartition("@")[2]
    virtual_host = unquote(broker_url.path.removeprefix("/")) or "/"
    try:
        answer = requests.get(
            f"{url.scheme}://{host}{url.path.rstrip('/')}/api/{path}/{quote(virtual_host, safe='')}",
            auth=(unquote(login.username or "guest"), unquote(login.password or "guest")),
            timeout=15,
        )
    except requests.RequestException as error:
        raise DependencyDown(_API, type(error).__name__) from error
    if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise Misconfigured("RABBITMQ_MANAGEMENT_URL: the broker refuses this user, password or right")
    try:
        answer.raise_for_status()
        found = answer.json()
    except requests.RequestException as error:
        raise DependencyDown(_API, f"{path}: HTTP {answer.status_code}") from error
    if not isinstance(found, list):
        raise Misconfigured("RABBITMQ_MANAGEMENT_URL: this is no management API of RabbitMQ")
    return found
