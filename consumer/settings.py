"""What the consumer reads from the environment, besides the publisher's settings."""

import re
from typing import Literal

import psycopg.conninfo
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from publisher.settings import FROM_ENVIRONMENT, LOGIN_RULE, TlsSettings, require_encoded_login

_UNKNOWN_OPTION = re.compile(r'invalid URI query parameter: "\w+"')

ChangedPolicy = Literal["reapply", "quarantine", "ignore"]


class DatabaseSettings(TlsSettings):
    """Where Postgres is; libpq's own PG* variables fill in what the URL leaves out."""

    database_url: SecretStr = Field(validation_alias="DATABASE_URL")

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
