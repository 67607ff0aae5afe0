"""The SQS client before it talks to anybody: where AWS's own settings come from, and what their absence says."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import SqsSettings
from publisher.sources.sqs import SqsQueue


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "FLEETTICKETS_SQS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


def queue(url: str) -> SqsQueue:
    return SqsQueue(SqsSettings.model_validate({"FLEETTICKETS_SQS_QUEUE_URL": url}))


@pytest.mark.parametrize(
    "host",
    ["sqs.eu-west-1.amazonaws.com", "vpce-0ab-1.sqs.eu-west-1.vpce.amazonaws.com", "sqs.eu-west-1.amazonaws.com.cn"],
)
def test_the_region_is_the_one_in_the_url_of_the_queue(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert queue(f"https://{host}/123456789012/changes")._sqs.meta.region_name == "eu-west-1"  # noqa: SLF001


def test_a_region_that_nobody_names_is_asked_for() -> None:
    with pytest.raises(Misconfigured, match="AWS_DEFAULT_REGION is not set"):
        queue("http://localhost:4566/000000000000/changes")


def test_a_profile_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    with pytest.raises(Misconfigured, match=r"AWS credentials .*gone"):
        queue("https://sqs.eu-west-1.amazonaws.com/123456789012/changes")


def queue_at(port: int) -> SqsQueue:
    url, endpoint = "https://sqs.us-east-1.amazonaws.com/123456789012/changes", f"http://127.0.0.1:{port}"
    return SqsQueue(
        SqsSettings.model_validate({"FLEETTICKETS_SQS_QUEUE_URL": url, "FLEETTICKETS_SQS_ENDPOINT": endpoint})
    )


class Failing(BaseHTTPRequestHandler):
    """A service that is there, and has a fault of its own."""

    def do_POST(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


def test_what_is_away_is_told_with_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with HTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        port = server.server_port
        with pytest.raises(DependencyDown, match=rf"^SQS is not available: 503: .*\(127\.0\.0\.1:{port}\)$"):
            queue_at(port).receive(1)
        server.shutdown()
    with pytest.raises(DependencyDown, match=rf"\(127\.0\.0\.1:{port}\)$"):
        queue_at(port).receive(1)
