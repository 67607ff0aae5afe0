"""Settings: one clear line for what is missing or wrong, and no secret in it."""

import re
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from consumer.commands.judged_settings import NEEDED as NEEDED_ONES
from consumer.commands.judged_settings import WHERE_WANTED, judged_settings
from consumer.commands.served import served_feeds
from consumer.postgres.database import address
from consumer.settings import (
    AlertSettings,
    ApiSettings,
    ApplySettings,
    ArchiveSettings,
    DatabaseChoice,
    DatabaseSettings,
    FailureSettings,
    FeedsSettings,
    GazetteerSettings,
    GeocoderChoice,
    GeocoderLimits,
    GeocoderSettings,
    HeartbeatSettings,
    HistorySettings,
    VerdictSettings,
)
from publisher.errors import Misconfigured
from publisher.settings import (
    BrokerSettings,
    BrokerUsersSettings,
    BucketSettings,
    LogSettings,
    SqsSettings,
    TlsSettings,
    TracesSettings,
    WebhookSettings,
    WorkSettings,
    load,
)
from tests import configuration

BUCKET = {"RUSTFS_ENDPOINT": "http://127.0.0.1:9000", "RUSTFS_ACCESS_KEY": "a", "RUSTFS_SECRET_KEY": "s3cret"}
NEEDED = BUCKET | {
    "DATABASE_URL": "postgresql://h/d",
    "RABBITMQ_URL": "amqp://h/",
    "GEOCODER_API_KEY": "pk.0",
    "FLEETTICKETS_SQS_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/name",
    "FLEETTICKETS_WEBHOOK_TOKEN": "s3cret",
    "RABBITMQ_MANAGEMENT_URL": "http://h:15672",
    "RABBITMQ_STORE_PASSWORD": "s3cret",
    "RABBITMQ_PUBLISHER_PASSWORD": "s3cret",
    "RABBITMQ_POLLER_PASSWORD": "s3cret",
    "RABBITMQ_CONSUMER_PASSWORD": "s3cret",
}
GEOCODER = [
    f"GEOCODER_{name}" for name in ("API_KEY", "URL", "COUNTRY", "PER_SECOND", "PER_MINUTE", "PER_DAY", "TIMEOUT")
]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = {name for kind in ALL for required in (True, False) for name in names(kind, required=required)}
    for name in (*ours, "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def set_all(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Misconfigured, match="RABBITMQ_URL is not set"):
        load(BrokerSettings)
    with pytest.raises(Misconfigured, match="RUSTFS_ENDPOINT is not set; RUSTFS_ACCESS_KEY is not set"):
        load(BucketSettings)


@pytest.mark.parametrize("url", ["http://user:s3cret@host/", "s3cret", "amqp//s3cret"])
def test_what_is_wrong_is_named_without_its_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RABBITMQ_URL", url)
    with pytest.raises(Misconfigured, match="RABBITMQ_URL is wrong") as complaint:
        load(BrokerSettings)
    assert "s3cret" not in str(complaint.value)


def test_a_database_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://host/tickets")
    with pytest.raises(Misconfigured, match="DATABASE_URL is wrong"):
        load(DatabaseSettings)


def test_the_defaults_are_those_of_the_system_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, BUCKET)
    settings = load(BucketSettings)
    assert (settings.bucket, settings.region) == ("isptickets", "us-east-1")
    assert served_feeds().named("inc").folder.changes == "automations/inc/changes/"


def test_a_share_beyond_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETTICKETS_MAX_REJECT_SHARE", "20")
    with pytest.raises(Misconfigured, match="FLEETTICKETS_MAX_REJECT_SHARE is wrong"):
        load(ApplySettings)


@pytest.mark.parametrize("token", ["  ", "s3crét", "s3\ncret"])
def test_a_token_that_no_store_can_send_is_refused(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("FLEETTICKETS_WEBHOOK_TOKEN", token)
    with pytest.raises(Misconfigured, match="FLEETTICKETS_WEBHOOK_TOKEN is wrong") as complaint:
        load(WebhookSettings)
    assert "s3" not in str(complaint.value)


def test_a_dot_env_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FLEETTICKETS_FILES_IN_HAND=7\nRABBITMQ_URL=amqp://h/\n")
    assert load(WorkSettings).files_in_hand == 7


def test_no_settings_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, BUCKET)
    assert "s3cret" not in repr(load(BucketSettings))


@pytest.mark.parametrize("url", ["name-of-a-queue", "https://sqs.eu-west-1.amazonaws.com/"])
def test_what_is_not_the_url_of_a_queue_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FLEETTICKETS_SQS_QUEUE_URL", url)
    with pytest.raises(Misconfigured, match="FLEETTICKETS_SQS_QUEUE_URL is wrong"):
        load(SqsSettings)


@pytest.mark.parametrize(
    ("setting", "kind", "url"),
    [
        *(
            ("RABBITMQ_URL", BrokerSettings, f"amqps://user:{password}@host/%2f")
            for password in ("12/s3cret", "s3cret/1", "12#s3cret", "s3cret#1", "s3cret?1", "a@s3cret/1", "[s3cret")
        ),
        # libpq takes a # and a ? in a password as they are.
        *(
            ("DATABASE_URL", DatabaseSettings, f"postgresql://user:{password}@host/tickets")
            for password in ("12/s3cret", "s3cret/1", "a@s3cret/1", "[s3cret", "%zzs3cret/")
        ),
    ],
)
def test_a_password_that_ends_the_login_too_early_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, setting: str, kind: type[BrokerSettings], url: str
) -> None:
    monkeypatch.setenv(setting, url)
    with pytest.raises(Misconfigured, match=f"{setting} is wrong") as complaint:
        load(kind)
    assert "s3cret" not in str(complaint.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:a@s3cret@h/d", "postgresql://u:%zs3cret@h/d", "postgresql://u@h/d?s3c=1"]
)
def test_what_libpq_cannot_read_is_not_quoted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(Misconfigured, match="DATABASE_URL is wrong") as complaint:
        load(DatabaseSettings)
    assert "s3cret" not in str(complaint.value)


def test_keys_do_not_belong_into_the_address_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, BUCKET | {"RUSTFS_ENDPOINT": "https://user:s3cret@host/"})
    with pytest.raises(Misconfigured, match="RUSTFS_ENDPOINT is wrong") as complaint:
        load(BucketSettings)
    assert "s3cret" not in str(complaint.value)


def test_a_silent_network_ends_a_connection_unless_the_url_has_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@h/d?tcp_user_timeout=0&keepalives_idle=600")
    told = conninfo_to_dict(address(load(DatabaseSettings)))
    assert (told["tcp_user_timeout"], told["keepalives_idle"], told["keepalives_interval"]) == ("0", "600", "5")


@pytest.mark.parametrize(
    ("query", "file"), [("sslmode=verify-full", "ours"), ("", None), ("sslmode=verify-full&sslrootcert=its", "its")]
)
def test_the_ca_file_is_the_databases_too_where_tls_is_asked_for(query: str, file: str | None) -> None:
    settings = DatabaseSettings(database_url=SecretStr(f"postgresql://u@h/d?{query}"))
    told = conninfo_to_dict(address(settings.model_copy(update={"ca_file": Path("ours")})))
    assert told.get("sslrootcert") == file


def test_the_geocoder_is_the_free_plan_of_locationiq_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="GEOCODER_API_KEY is not set"):
        load(GeocoderSettings)
    monkeypatch.setenv("GEOCODER_API_KEY", " pk.s3cret\n")
    settings = load(GeocoderSettings)
    assert settings.api_key.get_secret_value() == "pk.s3cret"
    assert (str(settings.url), settings.country, settings.timeout) == ("https://us1.locationiq.com/v1", "ke", 10)
    assert (settings.per_second, settings.per_minute, settings.per_day) == (1, 60, 5000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GEOCODER_API_KEY", " "),
        ("GEOCODER_API_KEY", "s3cr\u00e9t"),
        ("GEOCODER_API_KEY", "s3\ncret"),
        ("GEOCODER_URL", "us1.locationiq.com/v1"),
        ("GEOCODER_URL", "ftp://us1.locationiq.com/v1"),
        ("GEOCODER_URL", "https://user:s3cret@us1.locationiq.com/v1"),
        ("GEOCODER_URL", "https://us1.locationiq.com/v1?key=s3cret"),
        ("GEOCODER_URL", "https://us1.locationiq.com/v1#s3cret"),
        ("GEOCODER_COUNTRY", "Kenya"),
        ("GEOCODER_COUNTRY", "ke,"),
        *((f"GEOCODER_PER_{window}", value) for window in ("SECOND", "MINUTE", "DAY") for value in ("0", "1.5", "all")),
        ("GEOCODER_TIMEOUT", "0"),
        ("GEOCODER_TIMEOUT", "61"),
        ("GEOCODER_TIMEOUT", "nan"),
    ],
)
def test_what_is_wrong_with_the_geocoder_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    set_all(monkeypatch, {"GEOCODER_API_KEY": "pk.0", name: value})
    with pytest.raises(Misconfigured, match=f"{name} is wrong") as complaint:
        load(GeocoderSettings)
    assert "s3c" not in str(complaint.value)


@pytest.mark.parametrize("days", ["0", "-1", "1e9", "inf", "nan", "for good"])
def test_days_that_no_calendar_has_are_refused(monkeypatch: pytest.MonkeyPatch, days: str) -> None:
    for name, kind in (
        ("FLEETTICKETS_KEEP_PLACES_DAYS", GazetteerSettings),
        ("FLEETTICKETS_KEEP_MISSES_DAYS", GazetteerSettings),
        ("FLEETTICKETS_KEEP_ARCHIVE_DAYS", ArchiveSettings),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, days)
            with pytest.raises(Misconfigured, match=name):
                load(kind)


ALL = (
    ApiSettings,
    ApplySettings,
    AlertSettings,
    ArchiveSettings,
    BrokerSettings,
    BrokerUsersSettings,
    BucketSettings,
    DatabaseChoice,
    DatabaseSettings,
    FailureSettings,
    FeedsSettings,
    GazetteerSettings,
    GeocoderChoice,
    GeocoderLimits,
    GeocoderSettings,
    LogSettings,
    HeartbeatSettings,
    HistorySettings,
    SqsSettings,
    TracesSettings,
    VerdictSettings,
    WebhookSettings,
    WorkSettings,
)


def names(kind: type[BaseSettings], *, required: bool) -> list[str]:
    fields = kind.model_fields.values()
    return [str(field.validation_alias) for field in fields if field.is_required() == required]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_an_empty_line_means_the_default_and_a_required_one_is_missing(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseSettings], where: str
) -> None:
    needed = {name: given for name, given in NEEDED.items() if name in names(kind, required=True)}
    set_all(monkeypatch, needed)
    default = load(kind)
    empty = dict.fromkeys(names(kind, required=False), "")
    if where == ".env":
        Path(".env").write_text("".join(f"{name}=\n" for name in empty))
    else:
        set_all(monkeypatch, empty)
    assert load(kind) == default
    for name in needed:
        monkeypatch.setenv(name, "")
        with pytest.raises(Misconfigured, match=f"{name} is not set"):
            load(kind)


def test_no_settings_are_left_out_of_these_tests() -> None:
    def below(kind: type[BaseSettings]) -> set[type[BaseSettings]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    ours = {kind for kind in below(BaseSettings) if kind.__module__.startswith(("consumer.", "publisher."))}
    assert ours - {TlsSettings} == set(ALL)
    shown = {kind for kinds in configuration.GROUPS.values() for kind in kinds}
    assert shown == ours - set(configuration.CHOICES), "docs/configuration.md has all that are no choices"


def test_the_doctor_judges_all_of_them() -> None:
    choices: set[type[BaseSettings]] = {DatabaseChoice, GeocoderChoice}
    assert {*NEEDED_ONES, *WHERE_WANTED} == set(ALL) - choices
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    known = {one.name for one in judged_settings()[1]}
    prefixed = set(re.findall(r"^#?((?:FLEETTICKETS|RUSTFS|GEOCODER)_[A-Z_]+)=", example, re.MULTILINE))
    assert prefixed - known == {"RUSTFS_TAG", "RUSTFS_PORT"}  # of compose.yaml alone


def test_a_file_that_is_no_text_is_one_line() -> None:
    Path(".env").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match=r"\.env is no text in UTF-8"):
        load(WorkSettings)
    with pytest.raises(Misconfigured, match=r"\.env is no text in UTF-8"):
        judged_settings()


@pytest.mark.parametrize(
    ("given", "likely"),
    [
        ("FLEETTICKETS_LATE", "FLEETTICKETS_LATE_SECONDS"),
        ("FLEETTICKETS_LATE_SECOND", "FLEETTICKETS_LATE_SECONDS"),
        ("GEOCODER_KEY", "GEOCODER_API_KEY"),
    ],
)
def test_the_likely_name_is_one_that_was_cut_short_or_mistyped(
    monkeypatch: pytest.MonkeyPatch, given: str, likely: str
) -> None:
    monkeypatch.setenv(given, "1")
    found = {one.about: one for one in judged_settings()[0]}
    assert found[given].do.startswith(f"{likely} may be meant")


def test_what_is_wrong_is_told_in_our_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETTICKETS_FEEDS_DIR", "/nowhere")
    with pytest.raises(Misconfigured, match="FLEETTICKETS_FEEDS_DIR is wrong: /nowhere is no folder"):
        load(FeedsSettings)


@pytest.mark.parametrize("given", ["KE,ug", "ke,UG"])
def test_a_country_is_taken_in_any_case(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    set_all(monkeypatch, {"GEOCODER_API_KEY": "pk.0", "GEOCODER_COUNTRY": given})
    assert load(GeocoderSettings).country == "ke,ug"


def test_every_setting_can_be_set_with_and_without_containers() -> None:
    root = Path(__file__).parents[2]
    named = {name for kind in ALL for required in (True, False) for name in names(kind, required=required)}
    assert set(GEOCODER) < named
    assert {name for name in named if name not in (root / ".env.example").read_text()} == set()
    # What compose.yaml itself decides, and what only another deployment has.
    without = {"FLEETTICKETS_CA_FILE", "FLEETTICKETS_SQS_ENDPOINT"}
    assert {name for name in named if f" {name}:" not in (root / "compose.yaml").read_text()} == without
