"""The way in by MQTT: what RustFS publishes there reaches the files queue through RabbitMQ's MQTT plugin."""

import json
import os
import subprocess
import sys
from urllib.parse import quote_plus, unquote, urlsplit

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.acceptance.broker import FILES
from tests.acceptance.feeds import csv, ticket
from tests.acceptance.stage import Stage, wait_until
from tests.acceptance.store import CHANGES, PROCESSED
from tests.conftest import ROOT

TOPIC = "fleettickets/changes/inc"
STACK = ROOT / "tests" / "stack" / "stack.py"


@pytest.fixture(scope="module")
def mqtt_url(services: dict[str, str]) -> str:
    """Where the broker speaks MQTT; our own one is told to."""
    if known := os.environ.get("RABBITMQ_MQTT_URL") or services.get("RABBITMQ_MQTT_URL"):
        return known
    asked = subprocess.run([sys.executable, STACK, "mqtt"], check=False, capture_output=True, text=True, timeout=90)
    if "no RabbitMQ of our own" in asked.stderr:
        pytest.skip("MQTT: set RABBITMQ_MQTT_URL beside RABBITMQ_URL")
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def rustfs_event(bucket: str, key: str, size: int) -> bytes:
    """What RustFS sends by MQTT: each record wrapped in `data`, the key form-encoded with its slashes."""
    encoded = quote_plus(key)
    found = {"key": encoded, "size": size, "eTag": "", "contentType": "text/csv", "sequencer": "18BC3F0A9D2E4C00"}
    event = {
        "eventVersion": "2.1",
        "eventSource": "rustfs:s3",
        "awsRegion": "",
        "eventTime": "2026-06-25T11:20:03.412Z",
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": "exporter"},
        "requestParameters": {"authorization": "***redacted***", "principalId": "exporter"},
        "responseElements": {"x-amz-request-id": "2f7c1d0e", "x-amz-id-2": ""},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "exporter"}, "arn": f"arn:aws:s3:::{bucket}"},
            "object": found,
        },
        "source": {"host": "s3.example.test", "port": "443", "userAgent": "Boto3/1.40.0"},
    }
    name = event["eventName"]
    record = {"object_name": encoded, "bucket_name": bucket, "event_name": name, "data": event}
    return json.dumps({"EventName": name, "Key": f"{bucket}/{key}", "Records": [record]}).encode()


def publish(url: str, vhost: str, bodies: list[bytes]) -> None:
    """Publish with QoS 1 and wait for each acknowledgement; the virtual host stands before the user's name."""
    address = urlsplit(url)
    client = Client(CallbackAPIVersion.VERSION2, client_id="rustfs")
    client.username_pw_set(f"{unquote(vhost)}:{address.username}", address.password)
    client.connect(address.hostname or "", address.port or 1883)
    client.loop_start()
    try:
        for body in bodies:
            client.publish(TOPIC, body, qos=1).wait_for_publish(20)
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_file_that_rustfs_announces_by_mqtt_becomes_rows(stage: Stage, mqtt_url: str) -> None:
    assert stage.run("topology", "--mqtt-topic", TOPIC).returncode == 0
    consumer = stage.start("consume")
    names = ["2026-06-25T142000", "2026-06-25 14:21:00+03:00", "2026-06-25T142200 (ü)"]
    keys = [f"{CHANGES}{name}.csv" for name in names]
    files = {key: csv([ticket(f"INC {key}")]) for key in keys}
    stage.bucket.put_all(files)
    bodies = [rustfs_event(stage.bucket.name, key, len(body)) for key, body in files.items()]
    publish(mqtt_url, stage.broker.vhost, bodies)
    stage.wait_for("done", *keys[:2])
    wait_until(lambda: stage.broker.held(FILES) == 0, "nothing is left to do")
    assert {row["first_seen_by"] for row in stage.query("SELECT first_seen_by FROM ingest.ledger")} == {"notification"}
    for key in keys[:2]:
        assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = %s", f"INC {key}") == 1
        assert stage.bucket.read(key.replace(CHANGES, PROCESSED)) == files[key]
    assert stage.ledger(keys[2])["decision"] == "ignored"  # outside the grammar of keys, and yet unharmed
    consumer.stop()


def test_a_topic_without_a_routing_key_of_its_own_is_refused_in_one_line(shared_stage: Stage) -> None:
    ended = shared_stage.run("topology", "--mqtt-topic", "fleettickets/#")
    assert ended.returncode == 2
    assert "MQTT topic 'fleettickets/#'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
