"""A feed as a value: where its files lie, what its columns are, what becomes of its rows. Pure.

Everything that differs between feeds is here; everything that they share is the program's.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_serializer, field_validator, model_validator

from consumer.feeds.folding import folded_name
from publisher.arrivals.folders import Folder, folder_of
from publisher.errors import Misconfigured

MAX_TEXT_BYTES = 1000
"""Of a text column, in UTF-8. Two of them share an index, whose entries end at 2,704 bytes."""
_STRICT = ConfigDict(frozen=True, extra="forbid")
MAX_TYPED_COLUMNS = 300
"""A row has to fit a page of 8,160 bytes, in which a value takes up to 24 however it is stored elsewhere."""
OF_THE_TABLE = frozenset({"ticket_id", "raw", "geom", "geog", "geo_source", "ingested_at"}) | frozenset(
    {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
)
"""Names of columns that every table has; the latter are PostgreSQL's own."""
_TAKEN = frozenset(
    {
        "closure_events", "closure_events_closed_at_idx", "closure_events_pkey", "cluster_aliases",
        "cluster_aliases_key", "geo_clusters", "geo_clusters_key", "geo_locations", "geo_locations_cleaned_query",
        "geo_locations_key", "import_meta", "import_meta_pkey", "inc_closed_at_idx", "inc_cluster_idx",
        "inc_created_at_service_idx", "inc_daily_snapshot", "inc_daily_snapshot_pkey", "inc_geog_idx", "inc_open_idx",
        "inc_open_sla", "versions", "versions_ticket_id", "versions_until",
    }
)  # fmt: skip
"""What else is in the schema of the feeds' tables, where tables, views and indexes share their names."""
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")
_IDENTIFIER_CHARS = 63

NOTHING = (
    "NULL", "null", "Null", r"\N", "nan", "NaN", "None", "none", "N/A", "n/a", "-", "--",
    "#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!",
)  # fmt: skip
"""What programs write for no value. What may be one, as NA and Nil, is not among them."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
_Plain = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]


class Form(StrEnum):
    """What the values of a column have to look like; a row whose value does not is a reject."""

    TEXT = "text"
    """Up to 1,000 bytes, so that it can be indexed."""
    TIMESTAMP = "timestamp"
    """`YYYY-MM-DD[ HH:MM[:SS[.f]]]` or ISO 8601; EAT where it names no zone."""
    BOOLEAN = "boolean"
    """true, t, 1 or false, f, 0, in any case."""
    NUMBER = "number"
    MINUTES = "minutes"
    """A number that fits an integer, rounded."""
    LATITUDE = "latitude"
    LONGITUDE = "longitude"
    """Decimal degrees. As typed columns: of the feed where it has a pair within Kenya, else where the ticket is."""
    ANY = "any"
    """Not looked at, and in `raw` alone."""


class FollowOn(StrEnum):
    """What is to be done after a file's rows are in."""

    GEOCODE = "geocode"
    HISTORY = "history"


_COORDINATES = (Form.LATITUDE, Form.LONGITUDE)
PLACES = ("cluster", "location_name")
_NEEDED = {FollowOn.GEOCODE: PLACES, FollowOn.HISTORY: ("closed_at",)}


class Column(BaseModel):
    """A column of the files that the feed knows. One that it does not know is in `raw` where it has a value."""

    model_config = _STRICT

    form: Form = Form.TEXT
    case: Literal["lower", "upper"] | None = None
    """What the values are brought to, in `raw` too."""
    typed: bool = True
    """Whether the table has a typed column of it beside `raw`."""
    column: Name | None = None
    """The name of that, if it is not the file's own in lower case."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_form(cls, given: object) -> object:
        """A form alone stands for a column with nothing else to say."""
        return {"form": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.case and self.form is not Form.TEXT:
            raise ValueError("case is for form text")
        return self

    @property
    def has_typed(self) -> bool:
        return self.typed and self.form is not Form.ANY


class Feed(BaseModel):
    """One feed, as its declaration says."""

    model_config = _STRICT

    name: Name
    title: _Plain = ""
    """What its rows are, for people: `Incident tickets`."""
    prefix: _Plain
    """Of its keys in the bucket: `automations/inc/`; `/` is the bucket's top."""
    id: str = "ticket_id"
    """The column of the files that tells whose row it is."""
    columns: dict[str, Column] = Field(min_length=1)
    """By their names in the files' header."""
    drop_when: str | None = None
    """A boolean column: rows where it is true are left out, and counted as alarms."""
    sentinel: str | None = None
    """How a row begins that the exporter writes in the place of one; left out, and counted."""
    never_kept: frozenset[str] = frozenset()
    """Columns whose values are dropped as soon as they are read."""
    always: tuple[str, ...] = ()
    """Columns that the exporter always writes: a file without one of them is refused, or told of."""
    nothing: tuple[str, ...] = NOTHING
    """What stands for an empty value, as it is spelt; in columns that are not `any`."""
    follow_ons: frozenset[FollowOn] = frozenset()

    def __hash__(self) -> int:
        return hash(self.name)

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in _TAKEN:
            raise ValueError(f"tickets.{name} has another use: a feed cannot be called {name!r}")
        return name

    @field_validator("columns")
    @classmethod
    def _can_be_in_a_header(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for name in columns:
            if not name or name != name.strip() or "\0" in name:
                raise ValueError(f"no column of a header is called {name!r}: spaces around a name are not read")
        return columns

    @field_serializer("never_kept", "follow_ons")
    def _in_order(self, names: frozenset[str]) -> list[str]:
        # Two dumps of one declaration have to be alike.
        return sorted(names)

    @field_validator("prefix")
    @classmethod
    def _ends_with_slash(cls, prefix: str) -> str:
        return f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.id not in self.columns:
            raise ValueError(f"id: the feed has no column {self.id!r}")
        if self.columns[self.id].form is not Form.TEXT:
            raise ValueError(f"id: {self.id!r} has to be of form text")
        if self.drop_when is not None:
            column = self.columns.get(self.drop_when)
            if column is None or column.form is not Form.BOOLEAN:
                raise ValueError(f"drop_when: {self.drop_when!r} is no boolean column of the feed")
        if both := self.never_kept & self.columns.keys():
            raise ValueError(f"never_kept: {min(both)!r} is one of the columns")
        if alike := next(_alike((*self.columns, *self.never_kept)), None):
            raise ValueError(f"columns: {alike[0]!r} and {alike[1]!r} are one to whoever reads a header")
        if unknown := [name for name in self.always if name not in self.columns]:
            raise ValueError(f"always: the feed has no column {unknown[0]!r}")
        names = list(self.typed_columns)
        if taken := [name for name in names if name in OF_THE_TABLE]:
            raise ValueError(f"columns: every table has a column {taken[0]!r} of its own; give the feed's a `column`")
        if len(names) > MAX_TYPED_COLUMNS:
            raise ValueError(f"columns: {len(names)} are typed, more than {MAX_TYPED_COLUMNS}; let the others be `any`")
        self._require_columns()
        return self

    def _require_columns(self) -> None:
        # By these names `raw` is read, by the trigger that places a row and where its closure is kept.
        for follow_on, names in _NEEDED.items():
            lacking = [name for name in names if self.typed_columns.get(name) != name]
            if follow_on in self.follow_ons and lacking:
                raise ValueError(f"follow_ons: {follow_on} goes by a column {lacking[0]!r}, which the feed lacks")
        coordinates = {column.form: name for name, column in self.columns.items() if column.form in _COORDINATES}
        if coordinates and coordinates != {form: form.value for form in _COORDINATES}:
            raise ValueError("columns: forms latitude and longitude are for a pair of columns of these names")

    @cached_property
    def typed_columns(self) -> dict[str, str]:
        """The columns of the table that are made from `raw`, with the file's name of each.

        Raises: ValueError, for two of one name.
        """
        found: dict[str, str] = {}
        for name, column in self.columns.items():
            if name == self.id or not column.has_typed:
                continue
            typed = column.column or column_name(name)
            if typed in found:
                raise ValueError(f"columns: {name!r} and {found[typed]!r} would both be {typed!r}; give one a `column`")
            found[typed] = name
        return found

    @property
    def shown_columns(self) -> tuple[str, ...]:
        """What a feature has of a ticket: the typed columns, but for those that its point tells."""
        points = (Form.LATITUDE, Form.LONGITUDE)
        typed = (column for column, name in self.typed_columns.items() if self.columns[name].form not in points)
        return ("ticket_id", *typed, "geo_source", "ingested_at")

    @property
    def places(self) -> tuple[str, ...]:
        """The columns that name where a ticket is, in words."""
        return PLACES if FollowOn.GEOCODE in self.follow_ons else ()

    @property
    def folder(self) -> Folder:
        return Folder(self.name, self.prefix)

    @property
    def table(self) -> tuple[str, str]:
        """Schema and name of the table of its rows."""
        return "tickets", self.name

    @property
    def positions(self) -> tuple[str, str]:
        """Schema and name of the table of what last wrote each row."""
        return "ingest", f"{self.name}_positions"

    @property
    def as_of(self) -> tuple[str, str]:
        """Schema and name of the function that gives its rows as they were."""
        return "reporting", f"{self.name}_as_of"

    @property
    def place_index(self) -> tuple[str, str]:
        """Schema and name of the index of where its rows are."""
        return "tickets", f"{self.name}_geom_idx"

    @property
    def relations(self) -> frozenset[tuple[str, str]]:
        """Schema and name of everything that `migrate` makes for it, with the indexes that PostgreSQL names itself."""
        keys = ((schema, f"{table}_pkey") for schema, table in (self.table, self.positions))
        return frozenset({self.table, self.positions, self.place_index, *keys})


class Feeds:
    """Those that a process serves, in the order of their names; and the folders of all that are declared."""

    def __init__(self, served: Iterable[Feed], declared: Iterable[Feed] = ()) -> None:
        self.served = tuple(sorted(served, key=lambda feed: feed.name))
        self.declared = tuple(sorted(declared, key=lambda feed: feed.name)) or self.served

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.served)

    @property
    def geocoded(self) -> tuple[Feed, ...]:
        """Of all that are declared, those whose tickets are placed: the gazetteer is one for every feed."""
        return tuple(feed for feed in self.declared if FollowOn.GEOCODE in feed.follow_ons)

    @property
    def folders(self) -> tuple[Folder, ...]:
        return tuple(feed.folder for feed in self.served)

    def named(self, name: str) -> Feed:
        """Raises: Misconfigured."""
        for feed in self.served:
            if feed.name == name:
                return feed
        raise Misconfigured(f"no feed {name!r}; there are {', '.join(feed.name for feed in self.served)}")

    def of_key(self, key: str) -> Feed | None:
        """The feed whose folders have the key; None where it is none of those served."""
        return next((feed for feed in self.served if folder_of((feed.folder,), key)), None)

    def of_change(self, key: str) -> Feed | None:
        """The feed whose `changes/` has the key; None where it is none of those served."""
        return next((feed for feed in self.served if key.startswith(feed.folder.changes)), None)

    def is_left_to_others(self, key: str) -> bool:
        """Whether the key is in the `changes/` of a feed that is declared, and not served here."""
        return self.of_change(key) is None and any(key.startswith(feed.folder.changes) for feed in self.declared)

    def narrowed(self, names: Iterable[str]) -> "Feeds":
        """The same with these alone; all where none is named.

        Raises: Misconfigured.
        """
        chosen = {self.named(name).name: self.named(name) for name in names}
        return Feeds(chosen.values(), self.declared) if chosen else self


def _alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs that differ in what is not heeded in a header."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(folded_name(name), name)
        if other != name:
            yield other, name


def column_name(name: str) -> str:
    """What the table calls a column of the files: `Created Date` is `created_date`."""
    found = _NOT_IN_A_NAME.sub("_", name.lower()).strip("_")[:_IDENTIFIER_CHARS]
    return found if found and found[0].isalpha() else f"column_{found}"[:_IDENTIFIER_CHARS]


def overlapping(feeds: Iterable[Feed]) -> tuple[Feed, Feed] | None:
    """Two whose folders a key could be in both of."""
    known: list[Feed] = []
    for feed in feeds:
        for other in known:
            if (
                feed.prefix.startswith(other.folder.changes)
                or other.prefix.startswith(feed.folder.changes)
                or (feed.prefix == other.prefix)
            ):
                return other, feed
        known.append(feed)
    return None


def sharing_a_relation(feeds: Iterable[Feed]) -> tuple[Feed, Feed, str] | None:
    """Two that would have a table or an index of the same name, and which."""
    known: dict[tuple[str, str], Feed] = {}
    for feed in feeds:
        for relation in sorted(feed.relations):
            if relation in known:
                return known[relation], feed, ".".join(relation)
            known[relation] = feed
    return None
