"""What the columns of a feed mean, as far as its files can be made up and their outcome foretold. Pure.

Said here once more, and not read from the feeds' declarations: the demo's end is compared with it.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FeedModel:
    """A feed by its columns: which are of a type, how they are cleaned, what drops a row, what makes a closure."""

    name: str
    """Of the feed and of its table."""
    id_column: str
    texts: tuple[str, ...]
    times: tuple[str, ...]
    flags: tuple[str, ...] = ()
    minutes: tuple[str, ...] = ()
    untyped: tuple[str, ...] = ()
    """Its other columns: in `raw` they are there without a value, too."""
    place: tuple[str, str] | None = None
    """Latitude and longitude."""
    lower: tuple[str, ...] = ()
    upper: tuple[str, ...] = ()
    alarm: str | None = None
    """The flag of rows that are dropped."""
    sentinel: str | None = None
    """How the last row of a cut export begins."""
    needed: str | None = "closed_at"
    """A column without which a file is refused; there are others, which no file is without."""
    closed_at: str | None = None
    closure: tuple[str, ...] = ()
    """What is kept of the first row of a closure; nothing is where `closed_at` is None."""
    closure_later: tuple[str, ...] = ()
    """And of its last row."""
    columns: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        alarm = () if self.alarm is None else (self.alarm,)
        named = (self.id_column, *self.texts, *self.times, *self.flags, *self.minutes, *self.untyped, *alarm)
        object.__setattr__(self, "columns", frozenset(named) | frozenset(self.place or ()))


INC = FeedModel(
    name="inc",
    id_column="ticket_id",
    texts=(
        "normalized_status", "raw_status", "bucket", "cluster", "region", "location_name", "assigned_team", "owner",
        "sla_status",
    ),
    times=(
        "created_at_service", "scheduled_at", "closed_at", "first_seen_at", "last_seen_at", "source_created_at",
        "source_updated_at",
    ),
    flags=("is_actionable",),
    minutes=("mttr",),
    untyped=(
        "service_type", "is_auto_created", "is_auto_closed", "week_start", "week_end", "source_s3_bucket",
        "source_s3_key", "source_snapshot_id", "department", "source_type",
    ),
    place=("latitude", "longitude"),
    lower=("region",),
    upper=("raw_status",),
    alarm="is_alarm",
    sentinel="EXPORT STOPPED",
    closed_at="closed_at",
    closure=("cluster", "region", "location_name", "assigned_team", "owner"),
    closure_later=("sla_status", "mttr", "created_at_service"),
)  # fmt: skip

CRQ = FeedModel(
    name="crq",
    id_column="ticket_id",
    texts=("normalized_status", "raw_status", "cluster", "region", "location_name", "assigned_team", "owner"),
    times=(
        "created_at_service", "scheduled_at", "closed_at", "first_seen_at", "last_seen_at", "source_created_at",
        "source_updated_at",
    ),
    place=("latitude", "longitude"),
    lower=("region",),
    upper=("raw_status",),
    sentinel="EXPORT STOPPED",
)  # fmt: skip
