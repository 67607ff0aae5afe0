"""Stands for RustFS in a container: S3 by moto, kept on the disk, and announced by AMQP as RustFS does.

Moto forgets all when it ends. So each request that changed something is written down, and made again at the start.
"""

import io
import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pika
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3 import notifications
from pika.exceptions import AMQPError
from werkzeug.serving import run_simple
from werkzeug.test import run_wsgi_app

CHANGING = {"PUT", "POST", "DELETE"}
PORT = 9000
THEIRS, MOTOS = b"arn:rustfs:sqs:", b"arn:aws:sqs:"
"""How targets of notifications begin: RustFS's, and the only ones that moto knows."""


class Spool:
    """Events wait on the disk, one a file, until the broker has confirmed them."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["RUSTFS_NOTIFY_AMQP_QUEUE_DIR_PRIMARY"])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made = 0
        self.awake = False

    def keep(self, _account: str, body: dict[str, Any], _queue: str, _region: str) -> None:
        """In place of what moto would do with an event; a test event has no records, and RustFS sends none."""
        if self.awake and "Records" in body:
            self._made += 1
            draft = self._folder / "draft"
            draft.write_text(json.dumps(_as_rustfs(body["Records"][0])))
            draft.rename(self._folder / f"{time.time_ns()}-{self._made}.json")

    def send(self) -> None:
        while True:
            try:
                self._send_all()
            except (AMQPError, OSError) as away:
                sys.stderr.write(f"events wait: {away!r}\n")
            time.sleep(0.5)

    def _send_all(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(os.environ["RUSTFS_NOTIFY_AMQP_URL_PRIMARY"]))
        channel = connection.channel()
        channel.confirm_delivery()
        while True:
            for file in sorted(self._folder.glob("*.json")):
                channel.basic_publish(
                    os.environ["RUSTFS_NOTIFY_AMQP_EXCHANGE_PRIMARY"],
                    os.environ["RUSTFS_NOTIFY_AMQP_ROUTING_KEY_PRIMARY"],
                    file.read_bytes(),
                    pika.BasicProperties(content_type="application/json", delivery_mode=2),
                    mandatory=True,
                )
                file.unlink()
            connection.process_data_events(time_limit=0.2)


class Store:
    def __init__(self, spool: Spool) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        folder = Path(os.environ["RUSTFS_VOLUMES"])
        folder.mkdir(parents=True, exist_ok=True)
        self._written = (folder / "requests").open("a+b")
        self._again()
        spool.awake = True

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/health/ready":
            start_response("200 OK", [])
            return []
        if f"Credential={os.environ['RUSTFS_ACCESS_KEY']}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            start_response("403 Forbidden", [])
            return []
        if environ["REQUEST_METHOD"] not in CHANGING:
            return self._answer(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).replace(THEIRS, MOTOS)
        environ["CONTENT_LENGTH"] = str(len(body))
        kept = {name: value for name, value in environ.items() if isinstance(value, str)}
        with self._lock:
            pickle.dump((kept, body), self._written)
            self._written.flush()
            os.fsync(self._written.fileno())
            return self._answer(environ | {"wsgi.input": io.BytesIO(body)}, start_response)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        parts, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        answer = b"".join(parts)
        if "notification" in environ["QUERY_STRING"]:
            answer = answer.replace(MOTOS, THEIRS)
            headers["Content-Length"] = str(len(answer))
        start_response(status, list(headers))
        return [answer]

    def _again(self) -> None:
        self._written.seek(0)
        while True:
            whole = self._written.tell()
            try:
                kept, body = pickle.load(self._written)  # noqa: S301 - its own file
            except (EOFError, pickle.UnpicklingError):  # the last one, cut off by a kill
                self._written.truncate(whole)
                return
            nothing = {"wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr, "wsgi.version": (1, 0)}
            more = {"wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False}
            run_wsgi_app(self._moto, kept | nothing | more, buffered=True)


def _as_rustfs(record: dict[str, Any]) -> dict[str, Any]:
    name, key, bucket = f"s3:{record['eventName']}", record["s3"]["object"]["key"], record["s3"]["bucket"]["name"]
    data = record | {"eventSource": "rustfs:s3", "eventName": name, "awsRegion": ""}
    found = {"object_name": key, "bucket_name": bucket, "event_name": name, "data": data}
    return {"EventName": name, "Key": f"{bucket}/{unquote_plus(key)}", "Records": [found]}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    events = Spool()
    notifications._send_sqs_message = events.keep  # type: ignore[assignment]  # noqa: SLF001
    store = Store(events)
    threading.Thread(target=events.send, daemon=True).start()
    run_simple("0.0.0.0", PORT, store, threaded=True, request_handler=MotoRequestHandler)  # noqa: S104 - in a container
