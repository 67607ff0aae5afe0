"""The broker's users beside its administrator, each with no more rights than its part needs.

Who may write to `fleettickets.events` may announce files. Who may write to `fleettickets` steers the consumer, since
retries, replays and requests come that way: that is for the consumer's own user, and for an operator, alone.
"""

import re
from dataclasses import dataclass

from publisher.broker import channels, management
from publisher.broker.topology import EVENTS, REQUESTS
from publisher.settings import BrokerUsersSettings

_NOTHING = "^$"
_OURS = rf"^{REQUESTS}($|\.)"
_EVENTS = f"^{re.escape(EVENTS)}$"
_POLL_LOCK = f"^{re.escape(channels.lock_name(channels.POLL))}$"


@dataclass(frozen=True, slots=True)
class BrokerUser:
    """A user, and as regular expressions the names of exchanges and queues that it may configure, write and read."""

    name: str
    configure: str
    write: str
    read: str


STORE = BrokerUser("fleettickets-store", _NOTHING, _EVENTS, _NOTHING)
"""A store that publishes its events."""
PUBLISHER = BrokerUser("fleettickets-publisher", _NOTHING, _EVENTS, _NOTHING)
"""`webhook` and `sqs`."""
POLLER = BrokerUser("fleettickets-poller", _POLL_LOCK, _EVENTS, _NOTHING)
"""`poll`, of which only one runs at a time: that is held by a queue of its own."""
CONSUMER = BrokerUser("fleettickets-consumer", _OURS, _OURS, _OURS)
"""`consume`, `topology`, and what an operator looks and mends with."""


def make(settings: BrokerUsersSettings) -> list[BrokerUser]:
    """Make the users, or give those that are there the passwords and rights that they should have.

    Raises: DependencyDown, Misconfigured.
    """
    passwords = {
        STORE: settings.store_password,
        PUBLISHER: settings.publisher_password,
        POLLER: settings.poller_password,
        CONSUMER: settings.consumer_password,
    }
    management.require_virtual_host(settings)
    for user, password in passwords.items():
        rights = {"configure": user.configure, "write": user.write, "read": user.read}
        management.put_user(settings, user.name, password.get_secret_value(), rights)
    return list(passwords)
