"""The shell lines for Coolify and Forgejo send what these read: quoted right, signed right, by the right method."""

import hashlib
import hmac
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "deployment-and-operations.md").read_text()
BLOCKS = [body for body in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "curl" in body]
GIVEN = {"APP": "app-uuid", "DEPLOYMENT": "one", "TOKEN": "1|token", "FORGEJO_TOKEN": "forgejo", "OWNER": "Owner",
         "REPO": "repo", "SECRET": "s3cret with 'quotes' and \"more\""}  # fmt: skip
pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("openssl")), reason="there is no curl or openssl here"
)


class Asked:
    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


class Listening(ThreadingHTTPServer):
    """Keeps what it is asked, and answers 200 to everything, as Coolify does."""

    asked: list[Asked]


class Answer(BaseHTTPRequestHandler):
    server: Listening

    def _keep(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.command, self.path, headers, body))
        self.send_response(200)
        self.end_headers()

    do_GET = do_POST = do_PATCH = _keep  # noqa: N815 - http.server calls them so

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def listening() -> Iterator[Listening]:
    server = Listening(("127.0.0.1", 0), Answer)
    server.asked = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def said(listening: Listening, which: str) -> list[Asked]:
    """What the only block with these words sends."""
    (block,) = [block for block in BLOCKS if which in block]
    at = f"http://127.0.0.1:{listening.server_port}"
    given = GIVEN | {"COOLIFY": at, "FORGEJO": at}
    assigned = "".join(f"{name}={shlex.quote(value)}\n" for name, value in given.items())
    subprocess.run(["sh", "-eu", "-c", assigned + block], check=True, capture_output=True, timeout=60)
    return listening.asked


def test_a_signed_push_is_signed_as_coolify_checks_it(listening: Listening) -> None:
    pushed, looked = said(listening, "X-Hub-Signature-256")
    secret = GIVEN["SECRET"].encode()
    assert (pushed.method, pushed.path) == ("POST", "/webhooks/source/gitea/events/manual")
    assert (
        pushed.headers["x-hub-signature-256"] == f"sha256={hmac.new(secret, pushed.body, hashlib.sha256).hexdigest()}"
    )
    assert (pushed.headers["x-gitea-event"], pushed.headers["content-type"]) == ("push", "application/json")
    push = json.loads(pushed.body)
    assert (push["ref"], push["repository"]["full_name"]) == ("refs/heads/main", "Owner/repo")
    assert push["commits"][0]["message"]
    assert (looked.method, looked.path) == ("GET", "/api/v1/deployments/applications/app-uuid?take=1")


def test_a_deployment_is_asked_for_by_post(listening: Listening) -> None:
    deployed, looked, logs = said(listening, "/api/v1/deploy?")
    assert (deployed.method, deployed.path) == ("POST", "/api/v1/deploy?uuid=app-uuid&force=false")
    assert deployed.headers["authorization"] == "Bearer 1|token"
    assert (looked.method, logs.method) == ("GET", "GET")


def test_variables_are_set_for_the_run_alone(listening: Listening) -> None:
    changed, looked = said(listening, "envs/bulk")
    assert (changed.method, changed.path) == ("PATCH", "/api/v1/applications/app-uuid/envs/bulk")
    (variable,) = json.loads(changed.body)["data"]
    assert variable == {"key": "RUSTFS_BUCKET", "value": "isptickets", "is_buildtime": False, "is_literal": True}
    assert looked.method == "GET"


def test_forgejo_is_told_of_a_hook_that_it_can_make(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GIVEN, "SECRET", "fortyletters")
    (made,) = said(listening, "/hooks")
    assert (made.method, made.path) == ("POST", "/api/v1/repos/Owner/repo/hooks")
    hook = json.loads(made.body)
    assert (hook["type"], hook["events"], hook["branch_filter"], hook["active"]) == ("gitea", ["push"], "main", True)
    assert hook["config"]["url"].endswith("/webhooks/source/gitea/events/manual")
    assert (hook["config"]["content_type"], hook["config"]["secret"]) == ("json", "fortyletters")


def test_every_block_that_asks_something_is_tried() -> None:
    assert len(BLOCKS) == 4
