"""Typed settings from the environment and a `.env` file, checked once, before anything is touched."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import structlog
from pydantic import AmqpDsn, AnyUrl, Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from publisher import tls
from publisher.errors import Misconfigured
from publisher.log import LogLevel

FROM_ENVIRONMENT = SettingsConfigDict(
    env_file=".env",
    env_ignore_empty=True,  # an empty line is none, as in compose.yaml
    extra="ignore",
    populate_by_name=True,
    hide_input_in_errors=True,
)


def require_encoded_login(url: str) -> None:
    """Refuse a URL whose login ends too early at a raw `/` or `#`: its rest would pass for a name and be shown.

    Raises: ValueError.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(LOGIN_RULE) from None
    if "@" in parts.path + parts.fragment:
        raise ValueError(LOGIN_RULE)


def host_and_port(url: AnyUrl) -> str:
    return f"{url.host}:{url.port}"


MASK = "***"
LOGIN_RULE = "in user and password, write special characters percent-encoded (a slash is %2F, an @ is %40)"


class TlsSettings(BaseSettings):
    """Whom to trust, for every service that is spoken to by TLS."""

    model_config = FROM_ENVIRONMENT

    ca_file: Path | None = Field(None, validation_alias=tls.CA_FILE)
    """A PEM file: whom to trust by TLS, in place of the CAs of the system. See docs/security.md."""

    @field_validator("ca_file")
    @classmethod
    def _holds_certificates(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        try:
            tls.context(path)
        except OSError as error:
            raise ValueError(f"{path} is no file of PEM certificates ({error.strerror or error})") from None
        return path


class BrokerSettings(TlsSettings):
    """Where RabbitMQ is. The URLs hold passwords, so they are kept as secrets."""

    rabbitmq_url: SecretStr = Field(validation_alias="RABBITMQ_URL")
    """`amqp://user:password@host:5672/%2f`, or `amqps://`."""
    management_url: SecretStr | None = Field(None, validation_alias="RABBITMQ_MANAGEMENT_URL")
    """`http://host:15672`: lets `topology` and `doctor` see bindings and what is not declared."""

    @field_validator("rabbitmq_url")
    @classmethod
    def _is_amqp(cls, url: SecretStr) -> SecretStr:
        require_encoded_login(url.get_secret_value())
        TypeAdapter(AmqpDsn).validate_python(url.get_secret_value())
        return url

    @field_validator("management_url")
    @classmethod
    def _is_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        require_encoded_login(url.get_secret_value())
        TypeAdapter(HttpUrl).validate_python(url.get_secret_value())
        return url


class BrokerUsersSettings(BrokerSettings):
    """An administrator's login to RabbitMQ and its management API, and passwords for the users that it makes."""

    management_url: SecretStr = Field(validation_alias="RABBITMQ_MANAGEMENT_URL")
    """`http://host:15672`, where the users are made."""
    store_password: SecretStr = Field(validation_alias="RABBITMQ_STORE_PASSWORD")
    """Of `fleettickets-store`."""
    publisher_password: SecretStr = Field(validation_alias="RABBITMQ_PUBLISHER_PASSWORD")
    """Of `fleettickets-publisher`."""
    poller_password: SecretStr = Field(validation_alias="RABBITMQ_POLLER_PASSWORD")
    """Of `fleettickets-poller`."""
    consumer_password: SecretStr = Field(validation_alias="RABBITMQ_CONSUMER_PASSWORD")
    """Of `fleettickets-consumer`."""


class BucketSettings(TlsSettings):
    """Which bucket the change files are in; where in it, their feeds say."""

    endpoint: HttpUrl = Field(validation_alias="RUSTFS_ENDPOINT")
    """`https://s3.example.com`: any S3 store, addressed path-style."""
    access_key: SecretStr = Field(validation_alias="RUSTFS_ACCESS_KEY")
    """Who may list, read, write and delete in the bucket."""
    secret_key: SecretStr = Field(validation_alias="RUSTFS_SECRET_KEY")
    """The secret of that key."""
    bucket: str = Field(
        "isptickets", validation_alias="RUSTFS_BUCKET", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$"
    )
    """Its name. One virtual host of RabbitMQ serves one bucket."""
    region: str = Field("us-east-1", validation_alias="RUSTFS_REGION")
    """The region that the store wants to be asked in."""

    @field_validator("endpoint")
    @classmethod
    def _has_no_login(cls, url: HttpUrl) -> HttpUrl:
        # Libraries show an endpoint in their errors.
        if url.username or url.password:
            raise ValueError("the keys go into RUSTFS_ACCESS_KEY and RUSTFS_SECRET_KEY, not into the address")
        return url

    @property
    def where(self) -> str:
        return host_and_port(self.endpoint)


class SqsSettings(TlsSettings):
    """The SQS queue that an AWS bucket announces to. Credentials and region are read by boto3, AWS's own way."""

    queue_url: HttpUrl = Field(validation_alias="FLEETTICKETS_SQS_QUEUE_URL")
    """`https://sqs.<region>.amazonaws.com/<account>/<queue>`."""
    endpoint: HttpUrl | None = Field(None, validation_alias="FLEETTICKETS_SQS_ENDPOINT")
    """Another service that speaks SQS, in place of AWS."""

    @field_validator("queue_url")
    @classmethod
    def _names_a_queue(cls, url: HttpUrl) -> HttpUrl:
        if not (url.path or "").strip("/"):
            raise ValueError("no queue in it; like https://sqs.eu-west-1.amazonaws.com/123456789012/name")
        return url


BATCH = 16
"""Small files that wait are applied together, so many at the most."""


class LogSettings(BaseSettings):
    """How much is told of what a process does."""

    model_config = FROM_ENVIRONMENT

    level: LogLevel = Field("info", validation_alias="FLEETTICKETS_LOG_LEVEL")
    """The least that is told; the words of the log are in docs/operations.md."""


class TracesSettings(TlsSettings):
    """Where spans are sent, if anywhere: docs/operations.md. Others of OpenTelemetry's settings hold as well."""

    endpoint: HttpUrl | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """A collector, such as `http://collector:4318`. Without one nothing is recorded."""
    traces_endpoint: HttpUrl | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    """The same for traces alone, with its path."""
    headers: SecretStr | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_HEADERS")
    """What the collector wants to be shown: `name=value`, several with commas."""
    service_name: str | None = Field(None, validation_alias="OTEL_SERVICE_NAME")
    """Whose spans they are, instead of `fleettickets-consumer` and so on."""
    protocol: str = Field("http/protobuf", validation_alias="OTEL_EXPORTER_OTLP_PROTOCOL")
    """Nothing is sent by any other."""
    exporter: str = Field("otlp", validation_alias="OTEL_TRACES_EXPORTER")
    """With `none`, nothing is sent."""
    disabled: str = Field("false", validation_alias="OTEL_SDK_DISABLED")
    """With `true`, nothing is sent."""

    @field_validator("endpoint", "traces_endpoint")
    @classmethod
    def _is_only_an_address(cls, url: HttpUrl | None) -> HttpUrl | None:
        # It is told in the log, and libraries show it in their errors.
        if url is not None and (url.username or url.password or url.query):
            raise ValueError("credentials go into OTEL_EXPORTER_OTLP_HEADERS, not into the address")
        return url

    @property
    def address(self) -> str:
        """Whole; "" where none are sent."""
        if self.disabled.lower() == "true" or self.exporter.lower() == "none":
            return ""
        if self.traces_endpoint is not None:
            return str(self.traces_endpoint)
        return f"{str(self.endpoint).rstrip('/')}/v1/traces" if self.endpoint is not None else ""


class WorkSettings(BaseSettings):
    """How much one consumer process takes in hand; the poller needs it to judge the backlog."""

    model_config = FROM_ENVIRONMENT

    files_in_hand: int = Field(4, validation_alias="FLEETTICKETS_FILES_IN_HAND", ge=1, le=64)
    """Threads of one consumer that apply files; of small ones that wait each takes up to sixteen together."""

    @property
    def prefetch(self) -> int:
        """Unacked deliveries a consumer may hold: a batch for each thread, and no more, or others would idle."""
        return self.files_in_hand * BATCH


class WebhookSettings(BaseSettings):
    """What the webhook receiver asks of its callers."""

    model_config = FROM_ENVIRONMENT

    token: SecretStr = Field(validation_alias="FLEETTICKETS_WEBHOOK_TOKEN")
    """What the store sends as `Authorization: Bearer …`."""
    max_bytes: int = Field(1 << 20, validation_alias="FLEETTICKETS_WEBHOOK_MAX_BYTES", ge=1, le=1 << 27)
    """A larger body is refused."""
    confirm_seconds: float = Field(10, validation_alias="FLEETTICKETS_WEBHOOK_CONFIRM_SECONDS", gt=0, le=600)
    """How long the broker may take before the store is told to send again."""

    @field_validator("token")
    @classmethod
    def _can_be_sent(cls, token: SecretStr) -> SecretStr:
        bare = token.get_secret_value().strip()
        if not bare or not bare.isascii() or not bare.isprintable():
            raise ValueError("a token of printable ASCII characters is needed")
        return SecretStr(bare)


def log_settings(*groups: BaseSettings) -> None:
    """Say once, at the start of what runs for long, what it was told; each group under its name.

    Of a URL its password and query are `***`, of any other secret all of it.
    """
    told = {
        type(group).__name__.removesuffix("Settings").lower(): {
            name: masked(name, getattr(group, name)) for name in type(group).model_fields
        }
        for group in groups
    }
    structlog.get_logger().info("settings", **told)


def masked(name: str, value: object) -> object:
    """The value of a field as it may be shown."""
    match value:
        case SecretStr() if name.endswith("url"):
            return _masked_url(value.get_secret_value())
        case SecretStr():
            return MASK
        case AnyUrl():
            return _masked_url(str(value))
        case Path():
            return str(value)
        case tuple():
            return [masked(name, each) for each in value]
        case _:
            return value


def _masked_url(url: str) -> str:
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    return parts._replace(
        netloc=f"{user}{colon and f':{MASK}'}{at}{host}", query=parts.query and MASK, fragment=parts.fragment and MASK
    ).geturl()


_NO_TEXT = ".env is no text in UTF-8"

AnySettings = TypeVar("AnySettings", bound=BaseSettings)


class Complaint(NamedTuple):
    """What is wrong with one setting."""

    name: str
    what: str
    is_missing: bool


class Unfit(Misconfigured):
    """A group of settings cannot be used as it is."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        told = "; ".join(f"{complaint.name} {complaint.what}" for complaint in complaints)
        super().__init__(f"{told} (environment or .env file)")
        self.complaints = complaints


def load(kind: type[AnySettings], **given: Any) -> AnySettings:
    """Read one group of settings; a missing or wrong one is one line that names it.

    Raises: Unfit.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        names = {name: str(field.validation_alias or name) for name, field in kind.model_fields.items()}
        complaints = []
        for fault in error.errors(include_url=False, include_input=False):
            name = str(fault["loc"][0]) if fault["loc"] else "settings"
            is_missing = fault["type"] == "missing"
            what = "is not set" if is_missing else f"is wrong: {fault['msg'].removeprefix('Value error, ')}"
            complaints.append(Complaint(names.get(name, name), what, is_missing))
        raise Unfit(complaints) from None
    except UnicodeDecodeError:
        raise Misconfigured(_NO_TEXT) from None


def written() -> tuple[dict[str, str | None], dict[str, str | None]]:
    """What is set in the environment, and in `.env`, by names in capitals; an empty line is none.

    Raises: Misconfigured.
    """
    try:
        sources = EnvSettingsSource(TlsSettings), DotEnvSettingsSource(TlsSettings)
    except UnicodeDecodeError:
        raise Misconfigured(_NO_TEXT) from None
    environment, file = ({name.upper(): value for name, value in source.env_vars.items()} for source in sources)
    return environment, file
