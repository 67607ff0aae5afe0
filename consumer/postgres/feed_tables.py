"""The tables of each feed, as its declaration wants them. What is there stays: nothing is dropped or changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql
from psycopg.types.json import Jsonb

from consumer.feeds.feed import Feed, FollowOn, Form
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.postgres.queries import statements
from publisher.arrivals.folders import Folder
from publisher.errors import Misconfigured

_TYPES = {
    Form.TEXT: "text",
    Form.TIMESTAMP: "timestamp with time zone",
    Form.BOOLEAN: "boolean",
    Form.NUMBER: "numeric",
    Form.MINUTES: "integer",
    Form.LATITUDE: "double precision",
    Form.LONGITUDE: "double precision",
}
"""What the typed column of each form is, as Postgres says it."""
_COUNTED_ROWS = 100_000
"""Counting takes a look at each row; of a table with more it is estimated."""


@dataclass(frozen=True, slots=True)
class Made:
    """What the database has of a feed; `rows` is None where its table is gone."""

    prefix: str
    rows: int | None
    is_estimated: bool


def definition(feed: Feed) -> Iterator[sql.Composed]:
    """Every statement that makes what a feed has in the database. Each can be repeated."""
    yield _of(feed, "make_table")
    if feed.title:
        yield _of(feed, "comment_table", title=sql.Literal(feed.title))
    if columns := [_typed(feed, column, name, "typed") for column, name in feed.typed_columns.items()]:
        yield _of(feed, "make_columns", columns=sql.SQL(",\n    ").join(columns))
    yield _of(feed, "make_trigger")
    yield _of(feed, "make_index", index=sql.Identifier(feed.place_index[1]))
    yield _of(feed, "make_positions")
    yield _of(feed, "make_epoch", name=sql.Literal(feed.name))
    yield _of(feed, "make_as_of", body=sql.Literal(_as_of(feed).as_string()))
    yield _of(feed, "comment_as_of")


def as_text(feed: Feed) -> list[str]:
    """The statements of `definition` as they are sent."""
    return [statement.as_string() for statement in definition(feed)]


def make(connection: Connection, feeds: Sequence[Feed]) -> list[str]:
    """Make what the feeds lack, in the caller's transaction; gives those that were declared otherwise before.

    Raises: Misconfigured, for a table of another use, or one whose column is of another type; psycopg.Error.
    """
    _require_free(connection, feeds)
    changed = []
    for feed in feeds:
        for statement in definition(feed):
            connection.execute(statement)
        declaration = {"feed": feed.name, "prefix": feed.prefix, "declaration": Jsonb(feed.model_dump(mode="json"))}
        if database.row(connection, "feeds", "record_feed", declaration):
            changed.append(feed.name)
            database.rows(connection, "feeds", "move_version", {"feed": feed.name})
    require(connection, feeds)
    selects = [_named_places(feed) for feed in feeds if FollowOn.GEOCODE in feed.follow_ons]
    connection.execute(_composed("make_named_places", selects=sql.SQL("\nUNION ALL\n").join(selects)))
    return changed


def _require_free(connection: Connection, feeds: Sequence[Feed]) -> None:
    """What would be found in the place of a feed's own would be left as it is, without a word for an index."""
    wanted = [
        (feed.name, *relation, column)
        for feed in feeds
        for relation, column in ((feed.table, "raw"), (feed.positions, "position"), (feed.place_index, None))
    ]
    parameters = dict(zip(("feeds", "schemas", "names", "columns"), map(list, zip(*wanted, strict=True)), strict=True))
    if taken := database.row(connection, "feeds", "taken_names", parameters):
        raise Misconfigured(
            f"{taken['schema']}.{taken['name']} has another use: a feed cannot be called {taken['feed']!r}"
        )


def folders_of_others(connection: Connection, names: Sequence[str]) -> list[Folder]:
    """Of the feeds that have tables here and are not named.

    Raises: DependencyDown.
    """
    with database.translated_errors():
        others = database.rows(connection, "feeds", "others", {"feeds": list(names)})
    return [Folder(other["feed"], other["prefix"]) for other in others]


def made(connection: Connection) -> dict[str, Made]:
    """Of each feed that has tables here, declared or not.

    Raises: DependencyDown.
    """
    with database.translated_errors():
        found = database.rows(connection, "feeds", "made", {"exactly": _COUNTED_ROWS})
    return {row["feed"]: Made(row["prefix"], row["rows"], row["is_estimated"]) for row in found}


def require(connection: Connection, feeds: Sequence[Feed]) -> None:
    """Raises: Misconfigured, when the tables are not as declared; DependencyDown."""
    wanted = [(feed.name, column, _TYPES[feed.columns[name].form])
              for feed in feeds for column, name in feed.typed_columns.items()]  # fmt: skip
    feeds_of, names, types = (list(part) for part in zip(*wanted, strict=True))
    with database.translated_errors():
        found = database.rows(
            connection, "feeds", "other_than_declared", {"feeds": feeds_of, "names": names, "types": types}
        )
    if not found:
        return
    first = found[0]
    where = f"tickets.{first['feed']}"
    if first["type_there"] is None:
        raise Misconfigured(f"{where} has no column {first['name']}; run: fleettickets migrate")
    raise Misconfigured(
        f"{where}.{first['name']} is {first['type_there']}, and the declaration of {first['feed']!r} says "
        f"{first['type']}: declare another `column` for it, or {first['statement']} and migrate again"
    )


def _typed(feed: Feed, column: str, name: str, way: Literal["typed", "past"]) -> sql.Composed:
    return _composed(f"{way}_{feed.columns[name].form}", column=sql.Identifier(column), name=sql.Literal(name))


def _as_of(feed: Feed) -> sql.Composed:
    past = [_typed(feed, column, name, "past") for column, name in feed.typed_columns.items()]
    told: list[sql.Composable] = list(past) or [sql.SQL("NULL")]
    return _of(feed, "as_of", name=sql.Literal(feed.name), columns=sql.SQL(",\n                 ").join(told))


def _named_places(feed: Feed) -> sql.Composed:
    optional = {
        name: sql.Identifier("ticket", name) if name in feed.typed_columns else sql.SQL(absent)
        for name, absent in (("region", "NULL::text"), ("is_actionable", "NULL::boolean"))
    }
    return _of(feed, "named_places", **optional)


def _of(feed: Feed, statement: str, **parts: sql.Composable) -> sql.Composed:
    ours = {
        "tickets": sql.Identifier(*feed.table), "positions": sql.Identifier(*feed.positions),
        "as_of": sql.Identifier(*feed.as_of),
    }  # fmt: skip
    return _composed(statement, **ours, **parts)


def _composed(statement: str, **parts: sql.Composable) -> sql.Composed:
    return sql.SQL(statements("feeds")[statement]).format(**parts)
