"""What values of parameters are, and no others."""

import re
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints

_WRITTEN_OUT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}.*")


def _is_written_out(given: object) -> object:
    """A number would be taken for seconds since 1970."""
    if isinstance(given, str) and not _WRITTEN_OUT.fullmatch(given):
        raise ValueError("a time is as in 2026-06-25T00:00:00+03:00")
    return given


Word = Annotated[str, StringConstraints(max_length=200, pattern="^[^\0]*$")]
Moment = Annotated[AwareDatetime, BeforeValidator(_is_written_out)]


class Filters(BaseModel):
    """Those that a route knows; another one is refused, and not passed over."""

    model_config = ConfigDict(extra="forbid")
