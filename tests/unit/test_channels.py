"""What pika is asked for beyond what it offers: an end for work that a living broker does not answer."""

from types import SimpleNamespace
from typing import Any

import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from publisher.broker.channels import describe, ending_after

STREAM = "'10.0.0.7'/(<AddressFamily.AF_INET: 2>, <SocketKind.SOCK_STREAM: 1>, 6, '', ('10.0.0.7', 5672)); ssl=False"


@pytest.mark.parametrize("said", ["Timeout during AMQP handshake", "TCP connection attempt timed out"])
@pytest.mark.parametrize("between", ["", ": "])
def test_an_error_of_pika_is_told_without_its_sockets(said: str, between: str) -> None:
    error = AMQPConnectorStackTimeout(f"{said}{between}{STREAM}")
    assert describe(error) == f"AMQPConnectorStackTimeout: {said}"


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_connection_that_has_ended_in_the_same_moment_is_not_ended_again(is_closed: bool) -> None:
    timers: list[Any] = []
    ended: list[Exception] = []
    inner = SimpleNamespace(
        is_closed=is_closed,
        _adapter_call_later=lambda _seconds, end: timers.append(end),
        _adapter_remove_timeout=lambda _timer: None,
        _terminate_stream=ended.append,
    )
    connection: Any = SimpleNamespace(_impl=inner)
    with ending_after(30, connection, "it did not answer"):
        timers[0]()
    assert [str(error) for error in ended] == ([] if is_closed else ["it did not answer"])
