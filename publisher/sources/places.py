"""Who may stay connected to the webhook receiver when more want to than there is room for.

Whoever has shown the token stays. Of those who have not, the one that has been there for longest makes room for the
next, and an address has a share of the places only: a newcomer may be the store, which shows the token at once.
"""

import ipaddress
from typing import Final, Generic, TypeVar

ADDRESS_SHARE: Final = 4
"""Without having shown the token, one address may have one in so many of the places."""
_IPV6_PREFIX = 64

Connection = TypeVar("Connection")


class Places(Generic[Connection]):
    """A bounded number of places. Nothing here waits for a connection or ends one: the answers say whose turn it is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._for_one_address = max(1, total // ADDRESS_SHARE)
        self._address: dict[Connection, str] = {}
        # In the order of arrival, all of them and those of each address; a dictionary, because a set has no order.
        self._strangers: dict[Connection, None] = {}
        self._crowds: dict[str, dict[Connection, None]] = {}
        # Those that showed the token and have no request under way now.
        self._resting: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._address)

    def enter(self, newcomer: Connection, address: str) -> Connection | None:
        """Give a place; the answer is who has to go for it, the newcomer itself where all others are at work."""
        leaving: Connection | None = None
        if len(self._crowds.get(address, ())) >= self._for_one_address:
            leaving = next(iter(self._crowds[address]))
        elif len(self) >= self._total:
            leaving = next(iter(self._strangers or self._resting), newcomer)
        if leaving is newcomer:
            return leaving
        if leaving is not None:
            self.leave(leaving)
        self._address[newcomer] = address
        self._strangers[newcomer] = None
        self._crowds.setdefault(address, {})[newcomer] = None
        return leaving

    def know(self, connection: Connection) -> None:
        """It has shown the token with the request that is under way now."""
        self._forget(connection)

    def rest(self, connection: Connection) -> None:
        """Its request is done, and it may have another."""
        if connection in self._address and connection not in self._strangers:
            self._resting[connection] = None

    def leave(self, connection: Connection) -> None:
        """It is gone, or has no place any more."""
        self._forget(connection)
        self._address.pop(connection, None)

    def _forget(self, connection: Connection) -> None:
        self._resting.pop(connection, None)
        if connection in self._strangers:
            del self._strangers[connection]
            crowd = self._crowds[self._address[connection]]
            del crowd[connection]
            if not crowd:
                del self._crowds[self._address[connection]]


def counted_as(host: str) -> str:
    """Whose place it is: an IPv4 address, or the /64 of IPv6 that a provider gives to one customer."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
