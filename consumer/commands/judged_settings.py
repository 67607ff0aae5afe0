"""Every setting of every command: its value, where it comes from, and what a command would refuse."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from consumer import fail_points
from consumer.settings import (
    AlertSettings,
    ApiSettings,
    ApplySettings,
    ArchiveSettings,
    DatabaseSettings,
    FailureSettings,
    FeedsSettings,
    GazetteerSettings,
    GeocoderLimits,
    GeocoderSettings,
    HeartbeatSettings,
    HistorySettings,
    VerdictSettings,
)
from consumer.upkeep.findings import Effective, Finding, Origin
from publisher.errors import Misconfigured
from publisher.settings import (
    MASK,
    BrokerSettings,
    BrokerUsersSettings,
    BucketSettings,
    Complaint,
    LogSettings,
    SqsSettings,
    TracesSettings,
    Unfit,
    WebhookSettings,
    WorkSettings,
    load,
    masked,
    written,
)

NEEDED: tuple[type[BaseSettings], ...] = (
    DatabaseSettings, BrokerSettings, BucketSettings, FeedsSettings, WorkSettings, ApplySettings, HistorySettings,
    GazetteerSettings, FailureSettings, HeartbeatSettings, VerdictSettings, GeocoderLimits, ArchiveSettings,
    AlertSettings, LogSettings,
)  # fmt: skip
WHERE_WANTED: tuple[type[BaseSettings], ...] = (
    GeocoderSettings, WebhookSettings, ApiSettings, SqsSettings, BrokerUsersSettings, TracesSettings,
)  # fmt: skip
"""Of commands that not everybody has: what they lack is no mistake, and what they have is to be right."""
_OURS = ("FLEETTICKETS_", "RUSTFS_", "GEOCODER_")
_OF_COMPOSE = frozenset({"RUSTFS_TAG", "RUSTFS_PORT"})
_ALIKE = 0.8
_SET_IT = "set it in the environment or in .env; what it may be: docs/configuration.md"


@dataclass(frozen=True, slots=True)
class _Given:
    """What is set, by name in capitals; a line that is empty is none."""

    environment: Mapping[str, str | None]
    file: Mapping[str, str | None]

    def origin(self, name: str, *, is_required: bool) -> Origin:
        if self.environment.get(name):
            return Origin.ENVIRONMENT
        if self.file.get(name):
            return Origin.FILE
        return Origin.NOWHERE if is_required else Origin.DEFAULT

    def value(self, name: str) -> str | None:
        return self.environment.get(name) or self.file.get(name)


def judged_settings(*, without_broker: bool = False) -> tuple[list[Finding], list[Effective]]:
    """What is wrong with them, each once however many commands need it; and each as it is in force.

    That `RABBITMQ_URL` is missing is nothing `without_broker`.

    Raises: Misconfigured, for a file that cannot be read.
    """
    given = _Given(*written())
    complaints: dict[str, Complaint] = {}
    effective: dict[str, Effective] = {}
    for kind in (*NEEDED, *WHERE_WANTED):
        settings, wrong = _loaded(kind)
        for complaint in wrong:
            is_needed = kind in NEEDED and not (without_broker and kind is BrokerSettings)
            if is_needed or not complaint.is_missing:
                complaints.setdefault(complaint.name, complaint)
        for field, told in kind.model_fields.items():
            name = str(told.validation_alias)
            if name not in effective:
                is_wrong = any(complaint.name == name for complaint in wrong)
                value = None if is_wrong else _shown(field, told, settings, given.value(name))
                origin = given.origin(name, is_required=told.is_required())
                effective[name] = Effective(name=name, value=value, origin=origin)
    findings = [Finding.wrong(name, complaint.what, _SET_IT) for name, complaint in complaints.items()]
    try:
        fail_points.chosen({name: value or "" for name, value in given.environment.items()})
    except Misconfigured as error:
        findings.append(Finding.wrong(fail_points.VARIABLE, str(error), "remove it: it is for tests"))
    findings += _unknown(given, effective)
    if not findings:
        count = sum(one.origin in {Origin.ENVIRONMENT, Origin.FILE} for one in effective.values())
        findings = [Finding.ok("settings", f"{count} are set, and every command takes them")]
    return findings, list(effective.values())


def _loaded(kind: type[BaseSettings]) -> tuple[BaseSettings | None, list[Complaint]]:
    try:
        return load(kind), []
    except Unfit as error:
        return None, list(error.complaints)


def _shown(field: str, told: FieldInfo, settings: BaseSettings | None, raw: str | None) -> str | None:
    """As it may be shown; of a group that has a mistake elsewhere, what was written."""
    value: Any = masked(field, getattr(settings, field)) if settings else raw
    if settings is None and raw is None:
        value = None if told.is_required() else masked(field, told.get_default(call_default_factory=True))
    elif settings is None and _is_secret(told.annotation):
        value = MASK
    elif settings is None and raw and "://" in raw:
        value = masked("url", SecretStr(raw))
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return None if value is None or value == "" else str(value)


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _unknown(given: _Given, known: Mapping[str, Effective]) -> Iterator[Finding]:
    names = {*known, fail_points.VARIABLE, *_OF_COMPOSE}
    for name in sorted({*given.environment, *given.file} - names):
        if not name.startswith(_OURS) or not given.value(name):
            continue
        # One that is cut short is less alike than others are by what all names begin with.
        longer = [one for one in known if one.startswith(f"{name}_")]
        likely = longer[0] if len(longer) == 1 else next(iter(difflib.get_close_matches(name, known, 1, _ALIKE)), None)
        if likely is None:
            do = "nothing, if it is the store's own" if name.startswith("RUSTFS_") else "remove it"
            yield Finding.note(name, "no setting of this program", do)
        elif known[likely].origin in {Origin.ENVIRONMENT, Origin.FILE}:
            yield Finding.note(name, f"no setting of this program; {likely} is, and is set", "remove it")
        else:
            yield Finding.wrong(
                name, "no setting of this program", f"{likely} may be meant: call it that, or remove it"
            )
