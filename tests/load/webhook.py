"""Load on the webhook receiver: a real process, a real broker, and nothing lost. Run by `make load`.

Posts REQUESTS events, each with an id of its own, over CONNECTIONS connections that are kept open, and tells how long
that took. It fails only when the counts differ: answered with 200 = confirmed in the metrics = queued, each id once.
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import requests

from tests.doubles.receiver import free_port
from tests.stage.broker import FILES, Broker, fresh_vhost
from tests.stage.program import executed
from tests.stage.stage import Process, wait_until

TOKEN = secrets.token_urlsafe(24)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, choices=range(1, 200_001), metavar="N")
    parser.add_argument("--connections", type=int, default=50, choices=range(1, 201), metavar="N")
    parser.add_argument("--seconds", type=int, default=120, help="give up after so long")
    asked = parser.parse_args()
    url, management = os.environ["RABBITMQ_URL"], os.environ.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        sys.stderr.write("RABBITMQ_MANAGEMENT_URL is not set, so there is no making a virtual host for this\n")
        return 2
    broker = fresh_vhost(url, management, "fleettickets-load")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        environment = {**os.environ, "RABBITMQ_URL": broker.url, "FLEETTICKETS_WEBHOOK_TOKEN": TOKEN}
        log = Path(folder, "webhook.log")
        receiver = Process(executed(("webhook", "--port", str(port)), environment, Path(folder), log, log), log)
        try:
            return measure(port, broker, asked)
        finally:
            receiver.stop()


def measure(port: int, broker: Broker, asked: argparse.Namespace) -> int:
    wait_until(lambda: is_healthy(port), "the receiver is up")
    latencies: list[float] = []
    answers: Counter[int] = Counter()
    began = time.perf_counter()
    try:
        asyncio.run(
            asyncio.wait_for(post_all(port, asked.requests, asked.connections, latencies, answers), asked.seconds)
        )
    except TimeoutError:
        sys.stderr.write(f"not done within {asked.seconds} s\n")
    seconds = time.perf_counter() - began
    latencies.sort()
    confirmed = confirmed_by_metrics(port)
    queued = queued_ids(broker)
    say(
        f"{asked.requests} requests, {asked.connections} connections, {seconds:.2f} s: {len(latencies) / seconds:.0f}/s"
    )
    say(f"answers {dict(answers)}, p50 {at(latencies, 0.5):.1f} ms, p99 {at(latencies, 0.99):.1f} ms")
    say(f"answered 200: {answers[200]}, confirmed: {confirmed}, queued: {queued.total()}, different: {len(queued)}")
    if answers[200] == confirmed == queued.total() == len(queued) == asked.requests:
        return 0
    sys.stderr.write("the counts differ\n")
    return 1


async def post_all(port: int, count: int, connections: int, latencies: list[float], answers: Counter[int]) -> None:
    waiting = iter(range(count))

    async def post_some() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in waiting:
            began = time.perf_counter()
            writer.write(request(event(number)))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(content_length(head))
            latencies.append(1000 * (time.perf_counter() - began))
            answers[int(head[9:12])] += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(post_some() for _ in range(connections)))


def request(body: bytes) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: webhook\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def content_length(head: bytes) -> int:
    (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(length.partition(b":")[2])


def event(number: int) -> bytes:
    """What RustFS sends by webhook, as long as it really is; `number` stands in the key."""
    key = f"automations%2Finc%2Fchanges%2F{number:09}.csv"
    headers = {f"x-header-{n}": "v" * 24 for n in range(16)}
    found = {"key": key, "size": 48213, "eTag": "6f5902ac237024bdd0c176cb93063dc4", "sequencer": "18BC3F0A9D2E4C00"}
    record = {
        "eventVersion": "2.1",
        "eventSource": "rustfs:s3",
        "eventTime": "2026-06-25T11:20:03.412Z",
        "eventName": "s3:ObjectCreated:Put",
        "requestParameters": headers,
        "responseElements": {"x-amz-request-id": "2f7c1d0e-6b1f-4a52-9d0b-0d8a2f0f7f11"},
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "isptickets"}, "object": found},
    }
    return json.dumps({"EventName": "s3:ObjectCreated:Put", "Key": f"isptickets/{key}", "Records": [record]}).encode()


def is_healthy(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok
    except requests.ConnectionError:
        return False


def confirmed_by_metrics(port: int) -> int:
    lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("fleettickets_webhook_confirmed_total "))
    return int(float(value))


def queued_ids(broker: Broker) -> Counter[str]:
    """The keys in the queue's messages, which are taken out."""
    found: Counter[str] = Counter()
    with broker.channel() as channel:
        for method, _, body in channel.consume(FILES, auto_ack=True, inactivity_timeout=2):
            if method is None:
                return found
            found[json.loads(body or b"")["Key"]] += 1
    return found


def at(latencies: list[float], share: float) -> float:
    return latencies[int(share * (len(latencies) - 1))] if latencies else 0.0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
