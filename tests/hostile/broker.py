"""A broker that stops, is full, or cuts connections."""

import signal

from tests.hostile import management
from tests.hostile.hostility import Act, Hostility
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE, HISTORY


def _stopped(act: Act) -> None:
    """It takes connections still, and answers nothing."""
    rabbitmq = act.world.stack.rabbitmq
    with act.away():
        rabbitmq.signal(signal.SIGSTOP)
        act.hold()
        rabbitmq.signal(signal.SIGCONT)


def _silent(act: Act) -> None:
    with act.unheard("rabbitmq"):
        act.hold()


def _cut(act: Act) -> None:
    with act.away():
        for _ in range(3):
            act.insist(lambda: management.cut_connections(act.stage.broker))
            act.hold(act.lasting / 3)


def _dead_letters_are_full(act: Act) -> None:
    """What has to become a dead letter cannot yet; what else is there goes on."""
    with management.full(act.stage.broker, DEAD_FILES):
        for number in range(24):
            act.bad_body(f"not json while there is no room, {act.number}-{number}".encode())
        act.others_go_on("there is no room for 24 dead letters")


def _full(queue: str) -> Hostility:
    def play(act: Act) -> None:
        with act.away(), management.full(act.stage.broker, queue):
            act.hold()

    return Hostility(f"no room in {queue}", "nobody", play)


def _ends_beside(act: Act) -> None:
    """One more consumer is told to end while the broker confirms nothing."""
    consumer = act.stage.start("consume")
    act.wait_for(lambda: "consuming" in consumer.output(), "one more consumer does not come up")
    with act.unheard("rabbitmq"):
        for _ in range(4):
            act.good_file()
        act.hold(act.lasting / 2)
        consumer.terminate()
        act.has_to_end(consumer, "the broker is not heard")


HOSTILITIES = [
    Hostility("a broker that stands still", "nobody", _stopped),
    Hostility("a broker that is not heard", "nobody", _silent),
    Hostility("connections cut by the broker", "nobody", _cut),
    Hostility("no room for dead letters", "AMQP", _dead_letters_are_full),
    Hostility("a consumer's end while the broker is not heard", "nobody", _ends_beside),
    _full(FILES),
    _full(GEOCODE),
    _full(HISTORY),
]
