"""The port of a web server, and what its connections have from it."""

import socket

from publisher.sources import http_server


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    with http_server.listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
