"""What the consumer reads from the environment, besides the publisher's settings."""

from typing import Literal

import psycopg.conninfo
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from publisher.settings import FROM_ENVIRONMENT

ChangedPolicy = Literal["reapply", "quarantine", "ignore"]


class DatabaseSettings(BaseSettings):
    """Where Postgres is; libpq's own PG* variables fill in what the URL leaves out."""

    model_config = FROM_ENVIRONMENT

    database_url: SecretStr = Field(validation_alias="DATABASE_URL")

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if not text.startswith(("postgresql://", "postgres://")):
            raise ValueError("it begins with postgresql://")
        try:
            psycopg.conninfo.conninfo_to_dict(text)
        except psycopg.ProgrammingError as error:
            raise ValueError(" ".join(str(error).split())) from None
        return url


class ApplySettings(BaseSettings):
    """The rules that a file is judged by."""

    model_config = FROM_ENVIRONMENT

    max_reject_share: float = Field(0.5, validation_alias="FLEETTICKETS_MAX_REJECT_SHARE", ge=0, le=1)
    changed_policy: ChangedPolicy = Field("reapply", validation_alias="FLEETTICKETS_CHANGED_POLICY")


class HistorySettings(BaseSettings):
    """Captures run at most this often, in seconds; requests that arrive meanwhile share the next one."""

    model_config = FROM_ENVIRONMENT

    history_interval: float = Field(2.0, validation_alias="FLEETTICKETS_HISTORY_INTERVAL", ge=0)


class FailureSettings(BaseSettings):
    """So many messages in a row that fail for no reason of their own make the consumer pause."""

    model_config = FROM_ENVIRONMENT

    in_a_row: int = Field(20, validation_alias="FLEETTICKETS_MAX_FAILURES_IN_A_ROW", ge=1)
