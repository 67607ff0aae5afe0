"""Header tables that a publisher may send along: every type that AMQP's tables have, at its ends, and forged ones."""

import struct
from collections.abc import Callable

from tests.hostile.hostility import Act, Hostility

NAMES = (
    b"fleettickets-attempts",
    b"fleettickets-again",
    b"fleettickets-history",
    b"fleettickets-key",
    b"traceparent",
    b"tracestate",
    b"x-death",
    b"y",
)
"""Under which a value stands: those that the program reads, one of the broker's, and one of nobody's."""
FRAME = 131_072 - 200
"""What a header table may take at most, with the rest of its frame."""


def string(text: bytes) -> bytes:
    return b"S" + struct.pack(">I", len(text)) + text


def array(*values: bytes) -> bytes:
    return b"A" + struct.pack(">I", sum(map(len, values))) + b"".join(values)


def table(**values: bytes) -> bytes:
    inner = named([(name.encode(), value) for name, value in values.items()])
    return b"F" + struct.pack(">I", len(inner)) + inner


def named(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """The inside of a table: of names that may be wrong, and stand twice in it."""
    return b"".join(bytes([len(name)]) + name + value for name, value in pairs)


def _nested(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = array(value)
    return value


# What is no number is not among them: the broker itself ends the connection of whoever sends that.
VALUES = {
    "timestamp 2^62": b"T" + struct.pack(">Q", 2**62),
    "timestamp 2^64-1": b"T" + struct.pack(">Q", 2**64 - 1),
    "long 2^63-1": b"l" + struct.pack(">q", 2**63 - 1),
    "long -2^63": b"l" + struct.pack(">q", -(2**63)),
    "int": b"I" + struct.pack(">i", -(2**31)),
    "unsigned int": b"i" + struct.pack(">I", 2**32 - 1),
    "short": b"s" + struct.pack(">h", -(2**15)),
    "unsigned short": b"u" + struct.pack(">H", 2**16 - 1),
    "octet": b"b" + struct.pack(">b", -128),
    "unsigned octet": b"B" + struct.pack(">B", 255),
    "boolean": b"t\x01",
    "boolean 7": b"t\x07",
    "float": b"f" + struct.pack(">f", -3.4e38),
    "double": b"d" + struct.pack(">d", 5e-324),
    "decimal": b"D" + struct.pack(">BI", 255, 2**32 - 1),
    "void": b"V",
    "bytes": b"x" + struct.pack(">I", 3) + b"\xff\x00\xfe",
    "no UTF-8": string(b"\xff\xfe\xfd"),
    "NULs": string(b"\0" * 100),
    "an empty array": array(),
    "a table": table(a=string(b"b"), reason=b"V", count=b"l" + struct.pack(">q", -1)),
    "an array of tables": array(table(reason=b"V", time=b"T" + struct.pack(">Q", 2**62)), table()),
    "50 arrays in each other": _nested(50),
    "lines of 900 characters": array(*[string(b"h" * 900)] * (FRAME // len(NAMES) // 1_000)),
    "terminal": string(b"\x1b]0;title\x07\x1b[2J\r\n"),
}


def _with(name: str, header_table: Callable[[], bytes]) -> Hostility:
    """A message that has to become a dead letter, and one for a file that has to be applied."""

    def play(act: Act) -> None:
        headers = header_table()
        act.bad_body(f"not json, {act.number}".encode(), headers=headers)
        key = act.good_file(announced=False)
        act.publish(act.event(key), headers)

    return Hostility(f"headers: {name}", "AMQP", play)


def _typed(name: str, value: bytes) -> Hostility:
    return _with(name, lambda: named([(header, value) for header in NAMES]))


def _attempts(count: int) -> bytes:
    return named([(b"fleettickets-attempts", b"l" + struct.pack(">q", count))])


def _eight_with_too_many_attempts(act: Act) -> None:
    """As many as two consumers take in hand, and more: none of them may be held for good."""
    for number in range(24):
        act.bad_body(f"not json, {act.number}-{number}".encode(), headers=_attempts(2**63 - 1))
    act.others_go_on("messages with 2^63-1 attempts are decided")


def _forged(again: bytes) -> Hostility:
    """A stranger asks fifty times for a file that is a dead letter, as only a replay or a retry may."""

    def play(act: Act) -> None:
        key = act.bad_file(b"PK\x03\x04%d" % act.number, "not CSV")
        dead = "SELECT 1 FROM ingest.ledger WHERE key = %s AND dead_lettered_at IS NOT NULL"
        if act.wait_for(lambda: bool(act.stage.query(dead, key)), "a bad file is no dead letter"):
            headers = named([(b"fleettickets-again", string(again))])
            act.publish(act.event(key), headers, times=50)

    return Hostility(f"a forged {again.decode()}, fifty times", "AMQP", play)


HOSTILITIES = [
    *(_typed(name, value) for name, value in VALUES.items()),
    _with("a history of 130,900 characters", lambda: named([(NAMES[2], string(b"h" * (FRAME - 50)))])),
    _with("a history of one line of 130,900", lambda: named([(NAMES[2], array(string(b"h" * (FRAME - 60))))])),
    _with("a history of 25,000 lines", lambda: named([(NAMES[2], array(*[string(b"")] * 25_000))])),
    _with("a name that is no UTF-8", lambda: named([(b"\xff\xfe", b"V")])),
    _with("a name twice", lambda: named([(b"y", b"V"), (b"y", b"t\x01")])),
    _with(
        "other routing keys",
        lambda: named([(b"CC", array(string(b"files"), string(b"dead"))), (b"BCC", array(string(b"x")))]),
    ),
    _with("a delivery count of its own", lambda: named([(b"x-delivery-count", b"l" + struct.pack(">q", 2**62))])),
    Hostility("two dozen with 2^63-1 attempts", "AMQP", _eight_with_too_many_attempts),
    _forged(b"retry"),
    _forged(b"replay"),
]
