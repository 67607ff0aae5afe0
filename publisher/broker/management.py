"""RabbitMQ's management API, for what AMQP cannot tell: what a virtual host holds beside what one asks for by name."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.auth import HTTPBasicAuth
from requests.exceptions import SSLError

from publisher import tls
from publisher.broker import topology
from publisher.broker.topology import CLAIM, LOCK_PREFIX, PREFIX, Binding, Difference
from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import BrokerSettings

_API = "rabbitmq's management API"
_HARMFUL = frozenset(
    {"delivery-limit", "dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy", "expires",
     "max-length", "max-length-bytes", "message-ttl", "overflow"}
)  # fmt: skip
"""What a policy must not set on our queues, which are declared with what they need of it."""
_UNBIND = "unbind it on the server if nobody needs it"
_LOOK = "not of this version; look what it is for, and delete it on the server if nobody needs it"


def surplus(settings: BrokerSettings, wanted: list[Binding]) -> list[Difference]:
    """What the virtual host has under our names that the topology does not: exchanges, queues, bindings.

    Raises: DependencyDown, Misconfigured.
    """
    ours = {(declared.kind, declared.name) for declared in topology.declarations()} | {("queue", CLAIM)}
    found = [
        Difference(kind, found["name"], "undeclared", _LOOK)
        for kind, those in (("exchange", "exchanges"), ("queue", "queues"))
        for found in _get(settings, those)
        if found["name"].startswith(PREFIX) and (kind, found["name"]) not in ours and not _is_lock(found)
    ]
    return found + _surplus_bindings(_get(settings, "bindings"), wanted)


def _is_lock(found: dict[str, Any]) -> bool:
    """Whether it is the lock of a process that runs."""
    return found["name"].startswith(LOCK_PREFIX) and bool(found.get("exclusive"))


def _surplus_bindings(there: list[dict[str, Any]], wanted: list[Binding]) -> list[Difference]:
    ours = {declared.name for declared in topology.declarations()}
    known = {(binding.exchange, binding.queue, binding.key) for binding in wanted}
    found = []
    for binding in there:
        source, destination, key = binding["source"], binding["destination"], binding["routing_key"]
        # Every queue is bound to the exchange without a name, by the server itself.
        if not source or not {source, destination} & ours or (source, destination, key) in known:
            continue
        do = f"an MQTT topic: name it with --mqtt-topic, or {_UNBIND}" if source == topology.MQTT else _UNBIND
        found.append(Difference("binding", str(Binding(source, destination, key)), "undeclared", do))
    return found


def overridden(settings: BrokerSettings) -> list[Difference]:
    """Our queues that a policy of the server gives other limits than they were declared with.

    Raises: DependencyDown, Misconfigured.
    """
    ours = {declared.name for declared in topology.declarations()}
    found = []
    for queue in _get(settings, "queues"):
        rules = queue.get("effective_policy_definition")
        if queue["name"] not in ours or not isinstance(rules, dict):
            continue
        if set_by_policy := {name: value for name, value in rules.items() if name in _HARMFUL}:
            what = ", ".join(f"{name} is {value}" for name, value in sorted(set_by_policy.items()))
            policies = queue.get("policy") or queue.get("operator_policy") or "of the server"
            do = "keep our queues out of that policy: it can drop messages that nobody may lose"
            found.append(Difference("queue", queue["name"], f"by policy {policies}: {what}", do))
    return found


def unbound(settings: BrokerSettings, wanted: list[Binding]) -> list[Difference]:
    """Bindings that are wanted and missing.

    Raises: DependencyDown, Misconfigured.
    """
    there = {(found["source"], found["destination"], found["routing_key"]) for found in _get(settings, "bindings")}
    return [
        Difference("binding", str(binding), "missing", f"run: fleettickets topology{_mqtt_option(binding)}")
        for binding in wanted
        if (binding.exchange, binding.queue, binding.key) not in there
    ]


def steering(settings: BrokerSettings) -> list[str]:
    """Users beside our own who may write to the exchange whose messages are believed to be ours; sorted.

    Raises: DependencyDown; Misconfigured, as when this user may not ask: only administrators may.
    """
    own = unquote(urlsplit(settings.rabbitmq_url.get_secret_value()).username or "guest")
    permissions = _listed(_ask(settings, "GET", f"vhosts/{quote(_virtual_host(settings), safe='')}/permissions"))
    return sorted(found["user"] for found in permissions if found["user"] != own and _covers(found["write"]))


def _covers(pattern: str) -> bool:
    try:
        # An empty one is the server's way to say none.
        return bool(pattern) and re.search(pattern, topology.REQUESTS) is not None
    except re.error:  # Erlang has a few more
        return True


def _mqtt_option(binding: Binding) -> str:
    return f" --mqtt-topic {binding.key.replace('.', '/')}" if binding.exchange == topology.MQTT else ""


def require_virtual_host(settings: BrokerSettings) -> None:
    """Raises: Misconfigured, where the broker has no virtual host of RABBITMQ_URL's name; DependencyDown."""
    _ask(settings, "GET", f"vhosts/{quote(_virtual_host(settings), safe='')}")


def put_user(settings: BrokerSettings, name: str, password: str, rights: Mapping[str, str]) -> None:
    """Make a user, or change the one of that name; `rights` on the virtual host: configure, write and read.

    Raises: DependencyDown, Misconfigured.
    """
    _ask(settings, "PUT", f"users/{quote(name, safe='')}", {"password": password, "tags": ""})
    _ask(settings, "PUT", f"permissions/{quote(_virtual_host(settings), safe='')}/{quote(name, safe='')}", dict(rights))


def _get(settings: BrokerSettings, kind: str) -> list[dict[str, Any]]:
    """List one kind of thing in the virtual host of RABBITMQ_URL."""
    return _listed(_ask(settings, "GET", f"{kind}/{quote(_virtual_host(settings), safe='')}"))


def _listed(answer: requests.Response) -> list[dict[str, Any]]:
    try:
        found = answer.json()
    except requests.RequestException as error:
        asked = urlsplit(answer.url)
        raise DependencyDown(_API, f"{asked.path}: HTTP {answer.status_code}", asked.netloc) from error
    if not isinstance(found, list):
        raise Misconfigured("RABBITMQ_MANAGEMENT_URL: this is no management API of RabbitMQ")
    return found


def _virtual_host(settings: BrokerSettings) -> str:
    return unquote(urlsplit(settings.rabbitmq_url.get_secret_value()).path.removeprefix("/")) or "/"


def _ask(settings: BrokerSettings, method: str, path: str, body: Any = None) -> requests.Response:
    """One request, with RABBITMQ_URL's user where the API's URL names none; the answer is a success."""
    url = urlsplit(settings.management_url.get_secret_value() if settings.management_url else "")
    login = url if url.username else urlsplit(settings.rabbitmq_url.get_secret_value())
    host = url.netloc.rpartition("@")[2]
    try:
        answer = requests.request(
            method,
            f"{url.scheme}://{host}{url.path.rstrip('/')}/api/{path}",
            json=body,
            # As bytes: of text, the library makes Latin-1, and RabbitMQ reads UTF-8.
            auth=HTTPBasicAuth(
                unquote(login.username or "guest").encode(), unquote(login.password or "guest").encode()
            ),
            timeout=15,
            verify=str(settings.ca_file) if settings.ca_file else True,
        )
    except requests.RequestException as error:
        # Only of TLS in its own words; the others quote the address.
        detail = tls.explained(str(error), "RABBITMQ_MANAGEMENT_URL") if isinstance(error, SSLError) else ""
        raise DependencyDown(_API, detail or type(error).__name__, host) from error
    if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise Misconfigured("RABBITMQ_MANAGEMENT_URL: the broker refuses this user, password or right")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise Misconfigured(
            f"RABBITMQ_MANAGEMENT_URL: there is no virtual host {_virtual_host(settings)!r}; is it the broker of "
            "RABBITMQ_URL?"
        )
    try:
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DependencyDown(_API, f"{path.partition('/')[0]}: HTTP {answer.status_code}", host) from error
    return answer
