"""Typed settings from the environment and a `.env` file, checked once, before anything is touched."""

from typing import Any, TypeVar

from pydantic import AmqpDsn, Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from publisher.errors import Misconfigured

FROM_ENVIRONMENT = SettingsConfigDict(env_file=".env", extra="ignore", populate_by_name=True, hide_input_in_errors=True)


class BrokerSettings(BaseSettings):
    """Where RabbitMQ is. The URLs hold passwords, so they are kept as secrets."""

    model_config = FROM_ENVIRONMENT

    rabbitmq_url: SecretStr = Field(validation_alias="RABBITMQ_URL")
    management_url: SecretStr | None = Field(None, validation_alias="RABBITMQ_MANAGEMENT_URL")

    @field_validator("rabbitmq_url")
    @classmethod
    def _is_amqp(cls, url: SecretStr) -> SecretStr:
        TypeAdapter(AmqpDsn).validate_python(url.get_secret_value())
        return url

    @field_validator("management_url")
    @classmethod
    def _is_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        TypeAdapter(HttpUrl).validate_python(url.get_secret_value())
        return url


class BucketSettings(BaseSettings):
    """Where the change files are."""

    model_config = FROM_ENVIRONMENT

    endpoint: HttpUrl = Field(validation_alias="RUSTFS_ENDPOINT")
    access_key: SecretStr = Field(validation_alias="RUSTFS_ACCESS_KEY")
    secret_key: SecretStr = Field(validation_alias="RUSTFS_SECRET_KEY")
    bucket: str = Field(
        "isptickets", validation_alias="RUSTFS_BUCKET", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$"
    )
    region: str = Field("us-east-1", validation_alias="RUSTFS_REGION")
    prefix: str = Field("automations/inc/", validation_alias="FLEETTICKETS_PREFIX")

    @field_validator("prefix")
    @classmethod
    def _ends_with_slash(cls, prefix: str) -> str:
        return f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @property
    def changes_prefix(self) -> str:
        return f"{self.prefix}changes/"

    @property
    def processed_prefix(self) -> str:
        return f"{self.prefix}processed/"


class SqsSettings(BaseSettings):
    """The SQS queue that an AWS bucket announces to. Credentials and region are read by boto3, AWS's own way."""

    model_config = FROM_ENVIRONMENT

    queue_url: HttpUrl = Field(validation_alias="FLEETTICKETS_SQS_QUEUE_URL")
    endpoint: HttpUrl | None = Field(None, validation_alias="FLEETTICKETS_SQS_ENDPOINT")

    @field_validator("queue_url")
    @classmethod
    def _names_a_queue(cls, url: HttpUrl) -> HttpUrl:
        if not (url.path or "").strip("/"):
            raise ValueError("no queue in it; like https://sqs.eu-west-1.amazonaws.com/123456789012/name")
        return url


class WorkSettings(BaseSettings):
    """How much one consumer process takes in hand; the poller needs it to judge the backlog."""

    model_config = FROM_ENVIRONMENT

    files_in_hand: int = Field(4, validation_alias="FLEETTICKETS_FILES_IN_HAND", ge=1, le=64)

    @property
    def prefetch(self) -> int:
        """Unacked deliveries a consumer may hold: files being applied and files being archived."""
        return 2 * self.files_in_hand


class WebhookSettings(BaseSettings):
    """What the webhook receiver asks of its callers."""

    model_config = FROM_ENVIRONMENT

    token: SecretStr = Field(validation_alias="FLEETTICKETS_WEBHOOK_TOKEN")
    max_bytes: int = Field(1 << 20, validation_alias="FLEETTICKETS_WEBHOOK_MAX_BYTES", ge=1, le=1 << 27)
    confirm_seconds: float = Field(10, validation_alias="FLEETTICKETS_WEBHOOK_CONFIRM_SECONDS", gt=0, le=600)

    @field_validator("token")
    @classmethod
    def _can_be_sent(cls, token: SecretStr) -> SecretStr:
        bare = token.get_secret_value().strip()
        if not bare or not bare.isascii() or not bare.isprintable():
            raise ValueError("a token of printable ASCII characters is needed")
        return SecretStr(bare)


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def load(kind: type[AnySettings], **given: Any) -> AnySettings:
    """Read one group of settings; a missing or wrong one is one line that names it.

    Raises: Misconfigured.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        names = {name: str(field.validation_alias or name) for name, field in kind.model_fields.items()}
        complaints = []
        for fault in error.errors(include_url=False, include_input=False):
            name = str(fault["loc"][0]) if fault["loc"] else "settings"
            what = "is not set" if fault["type"] == "missing" else f"is wrong: {fault['msg']}"
            complaints.append(f"{names.get(name, name)} {what}")
        raise Misconfigured("; ".join(complaints) + " (environment or .env file)") from None
