"""The broker's address as the demo gives it to the store."""

import pytest

from consumer.demo.notifications import push_endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("amqp://guest:guest@127.0.0.1:5673/demo", "amqp://127.0.0.1:5673/demo"),
        ("amqp://127.0.0.1/", "amqp://127.0.0.1:5672"),
        ("amqp://127.0.0.1/%2f", "amqp://127.0.0.1:5672"),
        ("amqp://guest:guest@h/a%2Fb", "amqp://h:5672/a%2Fb"),
        ("amqps://me:se%40cret@h:5671/v", "amqps://me:se%40cret@h:5671/v"),
        ("amqps://me:s@h/v", "amqps://me:s@h:5671/v"),
    ],
)
def test_the_default_login_is_left_out_and_the_virtual_host_kept(url: str, endpoint: str) -> None:
    assert push_endpoint(url) == endpoint
