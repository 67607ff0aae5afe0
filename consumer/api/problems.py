"""What the API says when it cannot answer: problems as RFC 9457 has them."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from publisher.errors import FleetticketsError

_RETRY_AFTER = {"Retry-After": "5"}
_SHOWN_CHARS = 100
PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {}}}
GONE: dict[int | str, dict[str, Any]] = {
    410: {"description": "What has changed since then is not known any more, or not yet: load all anew.", **PROBLEM}
}
log = structlog.get_logger()


class Problem(Exception):
    """An answer that is none: its status, and a word for a person."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def tell(app: FastAPI) -> None:
    """Have the application tell of every trouble in this one way."""

    @app.exception_handler(Problem)
    async def tell_problem(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - that is what it is registered for
        return _answer(error.status, error.detail, error.headers)

    @app.exception_handler(FleetticketsError)
    async def tell_of_database(_request: Request, error: Exception) -> Response:
        log.warning("not answered", detail=str(error))
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, f"the database does not answer: {error}", _RETRY_AFTER)

    @app.exception_handler(Exception)
    async def tell_unexpected(_request: Request, _error: Exception) -> Response:
        return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "this was not expected; the log of the API says more")

    @app.exception_handler(RequestValidationError)
    async def tell_invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
        return _answer(HTTPStatus.BAD_REQUEST, "; ".join(map(_told, error.errors())))

    @app.exception_handler(HTTPException)
    async def tell_other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - as above
        status = HTTPStatus(error.status_code)
        detail = str(error.detail)
        if status is HTTPStatus.NOT_FOUND:
            path = request.url.path[:_SHOWN_CHARS]
            detail = f"nothing is served at {path!r}; /openapi.json names what is, and /ogc is for QGIS and its like"
        return _answer(status, detail, dict(error.headers or {}))


def _answer(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Response:
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def _told(error: dict[str, Any]) -> str:
    name = ".".join(map(str, error["loc"][1:])) or "the request"
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such parameter"
    if error["type"] == "missing":
        return f"{name} is missing"
    return f"{name} is {str(error.get('input'))[:_SHOWN_CHARS]!r}: {error['msg']}"
