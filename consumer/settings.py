"""What the consumer reads from the environment, besides the publisher's settings."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import psycopg.conninfo
from pydantic import Field, HttpUrl, SecretStr, StringConstraints, field_validator
from pydantic_settings import BaseSettings, NoDecode

from publisher.settings import FROM_ENVIRONMENT, LOGIN_RULE, TlsSettings, require_encoded_login

_TOKEN_CHARS = 16
_ORIGIN = re.compile(r"https?://[^/\s*?#]+")
_UNKNOWN_OPTION = re.compile(r'invalid URI query parameter: "\w+"')

MissingColumns = Literal["refuse", "allow"]
ChangedPolicy = Literal["reapply", "quarantine", "ignore"]


class DatabaseSettings(TlsSettings):
    """Where Postgres is; libpq's own PG* variables fill in what the URL leaves out."""

    database_url: SecretStr = Field(validation_alias="DATABASE_URL")
    """`postgresql://user:password@host/database`; libpq's `PG*` fill in what it leaves out."""

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if not text.startswith(("postgresql://", "postgres://")):
            raise ValueError("it begins with postgresql://")
        require_encoded_login(text)
        try:
            parts = psycopg.conninfo.conninfo_to_dict(text)
        except psycopg.ProgrammingError as error:
            # libpq quotes what it cannot read, which can be a part of the password.
            option = _UNKNOWN_OPTION.search(str(error))
            raise ValueError(option[0] if option else f"libpq cannot read it; {LOGIN_RULE}") from None
        ports = str(parts.get("port") or "").split(",")
        if "@" in str(parts.get("host") or "") or not all(port == "" or port.isdecimal() for port in ports):
            raise ValueError(f"host or port; {LOGIN_RULE}")
        return url


class DatabaseChoice(BaseSettings):
    """Whether there is a database to ask at all: the poller goes without one."""

    model_config = FROM_ENVIRONMENT

    database_url: SecretStr = Field(SecretStr(""), validation_alias="DATABASE_URL")

    @property
    def is_made(self) -> bool:
        return bool(self.database_url.get_secret_value().strip())


class FeedsSettings(BaseSettings):
    """Which feeds this process serves, and where the operator's own declarations are."""

    model_config = FROM_ENVIRONMENT

    names: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="FLEETTICKETS_FEEDS")
    """With commas, such as `inc,crq`; none stands for all that are declared."""
    folder: Path | None = Field(None, validation_alias="FLEETTICKETS_FEEDS_DIR")
    """A folder with declarations of your own, see docs/feeds.md."""

    former_prefix: str | None = Field(None, validation_alias="FLEETTICKETS_PREFIX")
    """Of the days of one feed: not heeded any more, so one that is no feed's is an error and not a surprise."""

    @field_validator("names", mode="before")
    @classmethod
    def _are_listed(cls, given: object) -> object:
        return tuple(filter(None, (name.strip() for name in given.split(",")))) if isinstance(given, str) else given

    @field_validator("folder")
    @classmethod
    def _is_a_folder(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_dir():
            raise ValueError(f"{path} is no folder")
        return path


class ApplySettings(BaseSettings):
    """The rules that a file is judged by."""

    model_config = FROM_ENVIRONMENT

    max_reject_share: float = Field(0.5, validation_alias="FLEETTICKETS_MAX_REJECT_SHARE", ge=0, le=1)
    """A file of ten rows or more with a greater share of bad lines fails whole."""
    missing_columns: MissingColumns = Field("refuse", validation_alias="FLEETTICKETS_MISSING_COLUMNS")
    """A file without a column that its exporter always writes is a dead letter; with `allow` the column is empty."""
    changed_policy: ChangedPolicy = Field("reapply", validation_alias="FLEETTICKETS_CHANGED_POLICY")
    """What becomes of new bytes under a known key: they are applied, or are a dead letter until it is replayed, or are
    left.
    """
    keep_versions_days: float = Field(400, validation_alias="FLEETTICKETS_KEEP_VERSIONS_DAYS", ge=0, le=36_500)
    """How long each content of a ticket is kept once another has replaced it; 0 keeps none. The same for all that apply
    files, see docs/history.md.
    """


class HistorySettings(BaseSettings):
    """Captures run at most this often, in seconds; requests that arrive meanwhile share the next one."""

    model_config = FROM_ENVIRONMENT

    history_interval: float = Field(2.0, validation_alias="FLEETTICKETS_HISTORY_INTERVAL", ge=0)
    """Seconds between two captures, at least."""


class ApiSettings(BaseSettings):
    """Whom the read API answers, and how much of the database it takes."""

    model_config = FROM_ENVIRONMENT

    tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field((), validation_alias="FLEETTICKETS_API_TOKENS")
    """Who shows one of them may read; several with commas, 16 characters at least each. Required on any address but
    loopback.
    """
    origins: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="FLEETTICKETS_API_ORIGINS")
    """Of pages whose scripts may read, as browsers name them, with commas: `https://map.example.org`."""
    url: HttpUrl | None = Field(None, validation_alias="FLEETTICKETS_API_URL")
    """Where others find the API, if it is behind a proxy: links begin with it. Else it is as they ask."""
    connections: int = Field(4, validation_alias="FLEETTICKETS_API_CONNECTIONS", ge=1, le=64)
    """To the database, for answers; one more is for the health, and two for who follows the changes."""
    answer_seconds: float = Field(30, validation_alias="FLEETTICKETS_API_SECONDS", gt=0, le=600)
    """For one look into the database."""
    rate: float = Field(50, validation_alias="FLEETTICKETS_API_RATE", gt=0, le=100_000)
    """Requests a second that one token may make from one address; more are answered with 429."""

    @field_validator("tokens", "origins", mode="before")
    @classmethod
    def _are_listed(cls, given: object) -> object:
        return tuple(filter(None, (name.strip() for name in given.split(",")))) if isinstance(given, str) else given

    @field_validator("tokens")
    @classmethod
    def _can_be_sent(cls, tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for token in tokens:
            text = token.get_secret_value()
            if len(text) < _TOKEN_CHARS or not text.isascii() or not text.isprintable() or " " in text:
                raise ValueError(f"a token is of {_TOKEN_CHARS} printable ASCII characters at least, without spaces")
        return tokens

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; like https://map.example.org, with nothing behind the host")
        return origins


class FailureSettings(BaseSettings):
    """So many messages in a row that fail for no reason of their own make the consumer pause."""

    model_config = FROM_ENVIRONMENT

    in_a_row: int = Field(20, validation_alias="FLEETTICKETS_MAX_FAILURES_IN_A_ROW", ge=1)
    """After so many that fail for no reason of their own it pauses, and spends no more attempts."""


class HeartbeatSettings(BaseSettings):
    """How often a process that runs for long says that it lives."""

    model_config = FROM_ENVIRONMENT

    seconds: float = Field(15, validation_alias="FLEETTICKETS_HEARTBEAT_SECONDS", ge=0.1, le=600)
    """Between two signs of life in the database."""


class VerdictSettings(BaseSettings):
    """What `status` calls late or stuck, and how long who looks waits for an answer; all in seconds but the last."""

    model_config = FROM_ENVIRONMENT

    answer_seconds: float = Field(5, validation_alias="FLEETTICKETS_STATUS_SECONDS", ge=0.5, le=600)
    """How long `status`, `verify` and `explain` wait for an answer of each part that they ask."""
    stuck_seconds: float = Field(60, validation_alias="FLEETTICKETS_STUCK_SECONDS", gt=0, le=86_400)
    """Without progress although files wait."""
    missing_seconds: float = Field(120, validation_alias="FLEETTICKETS_MISSING_SECONDS", gt=0, le=86_400)
    """Without a sign of a process; several times as long as FLEETTICKETS_HEARTBEAT_SECONDS."""
    late_seconds: float = Field(600, validation_alias="FLEETTICKETS_LATE_SECONDS", gt=0, le=31_536_000)
    """How long files may wait while they are worked off: more has exit status 3."""
    silent_times: float = Field(6, validation_alias="FLEETTICKETS_SILENT_TIMES", ge=1, le=10_000)
    """So many times the exporter's usual pause, and it is called silent."""


class ArchiveSettings(BaseSettings):
    """For how many days the bucket keeps what was archived; none is for good. The rule itself is the bucket's."""

    model_config = FROM_ENVIRONMENT

    days: float | None = Field(None, validation_alias="FLEETTICKETS_KEEP_ARCHIVE_DAYS", gt=0, le=36_500)
    """After so many days a lifecycle rule deletes what is in `processed/`: `verify` then calls it lost no more."""


class GeocoderLimits(BaseSettings):
    """How many requests all consumers together may send."""

    model_config = FROM_ENVIRONMENT

    per_second: int = Field(1, validation_alias="GEOCODER_PER_SECOND", ge=1, le=1000)
    """No more than the account has: the free plan has 2."""
    per_minute: int = Field(60, validation_alias="GEOCODER_PER_MINUTE", ge=1, le=60_000)
    """The free plan has 60."""
    per_day: int = Field(5000, validation_alias="GEOCODER_PER_DAY", ge=1, le=10_000_000)
    """The free plan has 5,000; the day is UTC's."""


class GeocoderSettings(GeocoderLimits, TlsSettings):
    """Which server finds places."""

    api_key: SecretStr = Field(validation_alias="GEOCODER_API_KEY")
    """The key to LocationIQ, or to a server that speaks as it does. Without one, requests wait."""
    url: HttpUrl = Field(HttpUrl("https://us1.locationiq.com/v1"), validation_alias="GEOCODER_URL")
    """Where that is; in Europe `https://eu1.locationiq.com/v1`."""
    country: Annotated[str, StringConstraints(to_lower=True)] = Field(
        "ke", validation_alias="GEOCODER_COUNTRY", pattern=r"^[A-Za-z]{2}(,[A-Za-z]{2})*$"
    )
    """Places are looked for in this country, or these with commas, and taken within Kenya's bounds."""
    timeout: float = Field(10, validation_alias="GEOCODER_TIMEOUT", gt=0, le=60)
    """Seconds for an answer."""

    @property
    def account(self) -> str:
        """Who asks whom, as a hash that tells neither."""
        return hashlib.sha256(f"{self.url}\n{self.api_key.get_secret_value()}".encode()).hexdigest()[:16]

    @field_validator("api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr) -> SecretStr:
        bare = key.get_secret_value().strip()
        if not bare or not bare.isascii() or not bare.isprintable():
            raise ValueError("a key of printable ASCII characters is needed")
        return SecretStr(bare)

    @field_validator("url")
    @classmethod
    def _is_only_an_address(cls, url: HttpUrl) -> HttpUrl:
        # Libraries show an address in their errors.
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("the key goes into GEOCODER_API_KEY, not into the address")
        return url


class GeocoderChoice(BaseSettings):
    """Whether there is a geocoder at all: without a key, requests for it wait in their queue."""

    model_config = FROM_ENVIRONMENT

    api_key: SecretStr = Field(SecretStr(""), validation_alias="GEOCODER_API_KEY")

    @property
    def is_made(self) -> bool:
        return bool(self.api_key.get_secret_value().strip())


class GazetteerSettings(BaseSettings):
    """For how many days an answer is as good as a new one; none is for good, which the provider's terms allow."""

    model_config = FROM_ENVIRONMENT

    keep_hits_days: float | None = Field(None, validation_alias="FLEETTICKETS_KEEP_PLACES_DAYS", gt=0, le=36_500)
    """Days after which a point is asked for again."""
    keep_misses_days: float = Field(30, validation_alias="FLEETTICKETS_KEEP_MISSES_DAYS", gt=0, le=36_500)
    """Days after which a place that was not found is asked for again."""
