"""Settings: one clear line for what is missing or wrong, and no secret in it."""

from pathlib import Path

import pytest

from consumer.settings import ApplySettings, DatabaseSettings
from publisher.errors import Misconfigured
from publisher.settings import BrokerSettings, BucketSettings, SqsSettings, WebhookSettings, WorkSettings, load

BUCKET = {"RUSTFS_ENDPOINT": "http://127.0.0.1:9000", "RUSTFS_ACCESS_KEY": "a", "RUSTFS_SECRET_KEY": "s3cret"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        *BUCKET,
        "RUSTFS_BUCKET",
        "RUSTFS_REGION",
        "FLEETTICKETS_PREFIX",
        "DATABASE_URL",
        "RABBITMQ_URL",
        "FLEETTICKETS_WEBHOOK_TOKEN",
    ):
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


@pytest.mark.parametrize(
    ("given", "changes"), [("automations/inc/", "automations/inc/changes/"), ("/x", "x/changes/"), ("", "changes/")]
)
def test_the_prefix_is_taken_with_and_without_its_slash(
    monkeypatch: pytest.MonkeyPatch, given: str, changes: str
) -> None:
    set_all(monkeypatch, {**BUCKET, "FLEETTICKETS_PREFIX": given})
    assert load(BucketSettings).changes_prefix == changes


def test_the_defaults_are_those_of_the_system_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, BUCKET)
    settings = load(BucketSettings)
    assert (settings.bucket, settings.region) == ("isptickets", "us-east-1")
    assert settings.changes_prefix == "automations/inc/changes/"


def test_a_share_beyond_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETTICKETS_MAX_REJECT_SHARE", "20")
    with pytest.raises(Misconfigured, match="FLEETTICKETS_MAX_REJECT_SHARE is wrong"):
        load(ApplySettings)


@pytest.mark.parametrize("token", ["", "  ", "s3crét", "s3\ncret"])
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


@pytest.mark.parametrize("url", ["", "name-of-a-queue", "https://sqs.eu-west-1.amazonaws.com/"])
def test_what_is_not_the_url_of_a_queue_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FLEETTICKETS_SQS_QUEUE_URL", url)
    with pytest.raises(Misconfigured, match="FLEETTICKETS_SQS_QUEUE_URL is wrong"):
        load(SqsSettings)
