"""An answer on its way out: not again where it is known, packed for who takes that, with the version that it is of."""

import re
from collections.abc import Set as AbstractSet
from http import HTTPStatus

from fastapi import Request, Response

from consumer.api.reading import Told

DATA_VERSION = "Data-Version"
"""The header with the version of its feed's data that an answer is of: whoever has it goes on from there."""
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")


def known_tags(request: Request) -> AbstractSet[str]:
    """Those of answers that the client has."""
    return {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}


def respond(request: Request, told: Told, media: str) -> Response:
    headers = {
        "ETag": told.tag,
        DATA_VERSION: str(told.version),
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Authorization",
    }
    if told.body is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if _GZIP.search(request.headers.get("accept-encoding", "")):
        return Response(told.body.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=media)
    return Response(told.body.plain, headers=headers, media_type=media)
