"""Who may read: whoever shows a token, or asks from this machine where none is set."""

import ipaddress
import secrets
from collections.abc import Sequence
from http import HTTPStatus

from fastapi import Request
from pydantic import SecretStr

from consumer.api.limits import Rates
from consumer.api.problems import Problem
from publisher.errors import Misconfigured
from publisher.sources import http_limits
from publisher.sources.places import counted_as


def require_tokens(tokens: Sequence[SecretStr], host: str) -> None:
    """Raises: Misconfigured, for an address that others can reach and nothing that they have to show."""
    if not tokens and not _is_loopback(host):
        raise Misconfigured(
            f"without FLEETTICKETS_API_TOKENS only this machine may ask: set some, or listen on 127.0.0.1, not {host}"
        )


class Access:
    """A dependency of every route that tells something of the data."""

    def __init__(self, tokens: Sequence[SecretStr], rates: Rates) -> None:
        self._rates = rates
        self._tokens = [token.get_secret_value().encode() for token in tokens]

    async def __call__(self, request: Request) -> None:
        """Raises: Problem. In the server's own thread, whose time limits it moves."""
        shown = b""
        if self._tokens:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            # Each is compared, so that the time that it takes tells nothing.
            shown = given.strip().encode("latin-1")
            is_right = [secrets.compare_digest(shown, token) for token in self._tokens]
            if scheme.lower() != "bearer" or not any(is_right):
                raise Problem(
                    HTTPStatus.UNAUTHORIZED,
                    "send the header `Authorization: Bearer <token>` with one of FLEETTICKETS_API_TOKENS",
                    {"WWW-Authenticate": "Bearer"},
                )
        self._rates.count((shown, counted_as(request.client.host if request.client else "")))
        http_limits.trust(request.scope)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
