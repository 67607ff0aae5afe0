"""Named statements from the `.sql` files in `sql/queries/`: `-- name: X` begins one, the rest is SQL."""

import re
from functools import cache
from importlib import resources
from typing import LiteralString

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, LiteralString]:
    """Every statement of `sql/queries/<file>.sql` by its name."""
    text = resources.files("sql").joinpath("queries", f"{file}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
