"""What an MQTT topic is on the AMQP side, and which have nothing there."""

import pytest

from publisher.broker.topology import Binding, bindings, declarations, mqtt_binding
from publisher.errors import Misconfigured


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("fleettickets/files", "fleettickets.files"),
        ("changes", "changes"),
        ("/a//b/", ".a..b."),
        ("Störung/INC 1", "Störung.INC 1"),
    ],
)
def test_slashes_become_dots(topic: str, key: str) -> None:
    assert mqtt_binding(topic) == Binding("amq.topic", "fleettickets.files", key)


@pytest.mark.parametrize("topic", ["", "a.b", "a/+/b", "a/#", "#", "a/*/b", "a\0b", "ü" * 128])
def test_a_topic_that_would_bind_something_else_is_refused(topic: str) -> None:
    with pytest.raises(Misconfigured, match="MQTT topic"):
        mqtt_binding(topic)


def test_every_binding_is_between_things_that_are_declared() -> None:
    names = {(declared.kind, declared.name) for declared in declarations()}
    for binding in bindings():
        assert {("exchange", binding.exchange), ("queue", binding.queue)} <= names
