"""AMQP header tables by the byte, as no client library would write them."""

import random
import struct

import pika

_SIZES = (
    dict.fromkeys("tbB", 1) | dict.fromkeys("sUu", 2) | dict.fromkeys("Iif", 4) | dict.fromkeys("lLdT", 8) | {"D": 5}
)


class RawProperties(pika.BasicProperties):
    """Of a persistent message whose headers are these bytes."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self._table = table

    def encode(self) -> list[bytes]:
        flags = self.FLAG_HEADERS | self.FLAG_DELIVERY_MODE
        return [struct.pack(">H", flags), struct.pack(">I", len(self._table)), self._table, b"\x02"]


def entry(name: bytes, value: bytes) -> bytes:
    """One of a table: `value` begins with its kind."""
    return bytes([len(name)]) + name + value


def of(kind: str, content: bytes) -> bytes:
    """A value whose content has a length in front: S, x, A or F."""
    return kind.encode() + struct.pack(">I", len(content)) + content


def timestamp(seconds: int) -> bytes:
    return b"T" + struct.pack(">Q", seconds)


def nested(kind: str, levels: int) -> bytes:
    """A list in a list in a list, or a table of tables."""
    value = of(kind, b"")
    for _ in range(levels):
        value = of(kind, entry(b"n", value) if kind == "F" else value)
    return value


ODD: dict[str, bytes] = {
    "a time after the end of the calendar": timestamp(2**62),
    "the last second there is": timestamp(2**64 - 1),
    "no number": b"d" + struct.pack(">d", float("nan")),
    "an infinite one": b"d" + struct.pack(">d", float("inf")),
    "a short infinite one": b"f" + struct.pack(">f", float("-inf")),
    "many decimals": b"D" + struct.pack(">Bi", 255, -(2**31)),
    "no UTF-8": of("S", b"\xff\xfe\x00"),
    "bytes": of("x", b"\x00\xff"),
    "nothing": b"V",
    "lists in lists": nested("A", 2000),
    "tables in tables": nested("F", 2000),
    "the largest number": b"l" + struct.pack(">q", 2**63 - 1),
    "the smallest": b"l" + struct.pack(">q", -(2**63)),
}
"""Values that RabbitMQ takes and passes on, each of which a program may not expect."""


def random_table(rng: random.Random) -> bytes:
    """A few entries of all kinds, nested, with names that need be neither text nor different."""
    return b"".join(entry(_name(rng), _value(rng, 4)) for _ in range(rng.randrange(1, 8)))


def _name(rng: random.Random) -> bytes:
    ours = ("attempts", "again", "reason", "error", "fingerprint", "key", "dead-at", "history", "probed")
    of_the_broker = [b"x-death", b"x-delivery-count", b"x-first-death-queue", b""]
    return rng.choice(
        [b"fleettickets-" + rng.choice(ours).encode(), rng.choice(of_the_broker), rng.randbytes(rng.randrange(20))]
    )


def _value(rng: random.Random, levels: int) -> bytes:
    kind = rng.choice("tbBsUuIilLfdDTSxV" + ("AF" if levels else ""))
    if kind in _SIZES:
        extreme = rng.choice([b"\x00", b"\xff", b"\x7f", b"\x80"]) * _SIZES[kind]
        return kind.encode() + rng.choice([extreme, rng.randbytes(_SIZES[kind])])
    if kind == "V":
        return b"V"
    if kind == "A":
        return of(kind, b"".join(_value(rng, levels - 1) for _ in range(rng.randrange(4))))
    if kind == "F":
        return of(kind, b"".join(entry(_name(rng), _value(rng, levels - 1)) for _ in range(rng.randrange(4))))
    return of(kind, rng.choice([rng.randbytes(rng.randrange(30)), b"replay", b"k" * 3000]))
