"""An answer on its way out: not again where it is known, packed for who takes that, with the version that it is of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from consumer.api import packing
from consumer.api.limits import Turns
from consumer.api.problems import Problem
from consumer.api.reading import Question, Reader, Told

DATA_VERSION = "Data-Version"
"""The header with the version of its feed's data that an answer is of: whoever has it goes on from there."""
_PATIENCE_SECONDS = 10
"""With an answer that somebody else is making."""
_ALIKE = 64
"""Of two questions that happen to share one, the second waits for the first."""


class GeoJson(Response):
    """As RFC 7946 has it."""

    media_type = "application/geo+json"


class Answers:
    """Those to questions that many may ask: made by one for all. For the event loop alone."""

    def __init__(self, reader: Reader, turns: Turns) -> None:
        self._reader = reader
        self._turns = turns
        self._alike = [asyncio.Lock() for _ in range(_ALIKE)]

    async def give(self, request: Request, asked: Question, media: str) -> Response:
        """Raises: Problem, where there is no answer, or no turn to make it; DependencyDown."""
        known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
        alike = self._alike[hash((asked.feed, asked.key)) % _ALIKE]
        told = self._reader.recent(asked, known, is_made_anew=alike.locked())
        if told is None:
            # Whoever waits here holds nothing, and finds what the one before him has made.
            async with _within_patience(alike):
                told = self._reader.recent(asked, known)
                if told is None:
                    told = await self._turns.take(lambda: self._reader.told(asked, known))
        return await _response(request, told, media)


@asynccontextmanager
async def _within_patience(alike: asyncio.Lock) -> AsyncIterator[None]:
    """Hold it, as soon as it is to be had. Raises: Problem, where that takes long."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await alike.acquire()
    except TimeoutError:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "others ask the same, and it takes long to answer", {"Retry-After": "5"}
        ) from None
    try:
        yield
    finally:
        alike.release()


async def _response(request: Request, told: Told, media: str) -> Response:
    headers = {
        "ETag": told.tag,
        DATA_VERSION: str(told.version),
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Authorization",
    }
    if told.body is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if packing.is_taken(request.headers.get("accept-encoding", "")):
        return Response(told.body.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=media)
    plain = await run_in_threadpool(lambda body: body.plain, told.body)  # which may take a while, and others wait
    return Response(plain, headers=headers, media_type=media)
