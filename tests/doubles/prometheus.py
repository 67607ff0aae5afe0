"""A real Prometheus over real processes, with the rules of docs/alerts.yml, which here wait for nothing."""

import json
import os
import re
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.conftest import ROOT
from tests.doubles.receiver import free_port
from tests.stage.stage import wait_until

RULES = ROOT / "docs" / "alerts.yml"
_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: fleettickets
    static_configs: [{{targets: {targets}}}]
  - job_name: node
    metrics_path: /{textfile}
    static_configs: [{{targets: ["127.0.0.1:{files}"]}}]
"""


class Prometheus:
    """Scrapes consumers at their ports, and a file that `status` writes; ended with its context."""

    def __init__(self, folder: Path, *ports: int) -> None:
        self.textfile = folder / "fleettickets.prom"
        self.textfile.touch()
        self._files = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        threading.Thread(target=self._files.serve_forever, daemon=True).start()
        targets = json.dumps([f"127.0.0.1:{port}" for port in ports])
        (folder / "prometheus.yml").write_text(
            _CONFIG.format(targets=targets, textfile=self.textfile.name, files=self._files.server_port)
        )
        (folder / "rules.yml").write_text(at_once(RULES.read_text()))
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            ["/usr/bin/prometheus", f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def __enter__(self) -> Self:
        wait_until(self._is_ready, "Prometheus is ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
        self._files.shutdown()
        self._files.server_close()

    def firing(self) -> set[str]:
        """The names of the alerts."""
        found: list[dict[str, Any]] = requests.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.ConnectionError:
            return False


def at_once(rules: str) -> str:
    """The same with no patience, and with seconds for minutes."""
    without = re.sub(r"^ +for: .*\n", "", rules, flags=re.MULTILINE)
    return re.sub(r"\[(15m|1h)\]", "[20s]", without).replace("> 300 or", "> 10 or").replace("> 900", "> 10")


class _Quiet(SimpleHTTPRequestHandler):
    def guess_type(self, path: str | os.PathLike[str]) -> str:  # noqa: ARG002 - there is one kind
        return "text/plain; version=0.0.4"

    def log_message(self, *_: object) -> None:
        pass
