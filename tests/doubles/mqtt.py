"""A store that announces by MQTT."""

import os
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import ROOT

TOPIC = "fleettickets/changes/inc"
_STACK = ROOT / "tests" / "stack" / "stack.py"


def mqtt_address(services: Mapping[str, str]) -> str:
    """Where the broker speaks MQTT; our own one is told to."""
    if known := os.environ.get("RABBITMQ_MQTT_URL") or services.get("RABBITMQ_MQTT_URL"):
        return known
    asked = subprocess.run([sys.executable, _STACK, "mqtt"], check=False, capture_output=True, text=True, timeout=90)
    if "no RabbitMQ of our own" in asked.stderr:
        pytest.skip("MQTT: set RABBITMQ_MQTT_URL beside RABBITMQ_URL")
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


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
