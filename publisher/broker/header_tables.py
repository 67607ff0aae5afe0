"""AMQP header tables read so that no stranger's table can end a connection.

pika reads the headers of a message in the middle of the connection's bytes, and what it cannot make a value of (a
timestamp beyond the year 9999, a number that is none, tables in tables a thousand deep) ends the connection. The
message then comes again, to the next connection or consumer, and ends that. Here every value of a table has a reading.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika.data

_DEEPEST = 16
"""Levels of tables and lists in one another; what lies deeper is read as empty ones."""
_LENGTH = struct.Struct(">I")


def _moment(seconds: int) -> datetime | int:
    """The time, or the number where it is none that Python has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return seconds


_FIXED: dict[int, tuple[struct.Struct, Callable[..., Any]]] = {
    ord("t"): (struct.Struct(">B"), bool),
    ord("b"): (struct.Struct(">b"), int),
    ord("B"): (struct.Struct(">B"), int),
    ord("s"): (struct.Struct(">h"), int),
    ord("U"): (struct.Struct(">h"), int),
    ord("u"): (struct.Struct(">H"), int),
    ord("I"): (struct.Struct(">i"), int),
    ord("i"): (struct.Struct(">I"), int),
    ord("l"): (struct.Struct(">q"), int),
    ord("L"): (struct.Struct(">q"), int),
    ord("f"): (struct.Struct(">f"), float),
    ord("d"): (struct.Struct(">d"), float),
    ord("T"): (struct.Struct(">Q"), _moment),
    ord("D"): (struct.Struct(">Bi"), lambda decimals, number: Decimal(number).scaleb(-decimals)),
}


def install() -> None:
    """Have pika read every table this way. It asks for `pika.data.decode_table` by name each time."""
    pika.data.decode_table = decode_table  # type: ignore[assignment]


def decode_table(encoded: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Read the table at `offset`; give it and the offset behind it.

    A table that breaks off or has a value of unknown kind is read up to there: its length tells where it ends.
    """
    try:
        return _table(encoded, offset, len(encoded), _DEEPEST)
    except _Unreadable:
        return {}, len(encoded)


def _table(encoded: bytes, offset: int, limit: int, levels: int) -> tuple[dict[str, Any], int]:
    offset, end = _extent(encoded, offset, limit)
    found: dict[str, Any] = {}
    try:
        while levels and offset < end:
            name_end = offset + 1 + encoded[offset]
            name = encoded[offset + 1 : name_end].decode(errors="backslashreplace")
            found[name], offset = _value(encoded, name_end, end, levels)
    except (_Unreadable, IndexError):
        pass
    return found, end


def _list(encoded: bytes, offset: int, limit: int, levels: int) -> tuple[list[Any], int]:
    offset, end = _extent(encoded, offset, limit)
    found = []
    try:
        while levels and offset < end:
            value, offset = _value(encoded, offset, end, levels)
            found.append(value)
    except (_Unreadable, IndexError):
        pass
    return found, end


class _Unreadable(Exception):
    """The bytes end, or a kind is unknown, and with it the length of what follows."""


def _extent(encoded: bytes, offset: int, limit: int) -> tuple[int, int]:
    """Where what stands behind a length begins and ends."""
    begin = offset + _LENGTH.size
    if begin > limit:
        raise _Unreadable
    (length,) = _LENGTH.unpack_from(encoded, offset)
    return begin, min(begin + length, limit)


def _value(encoded: bytes, offset: int, limit: int, levels: int) -> tuple[Any, int]:
    kind, offset = encoded[offset], offset + 1
    if fixed := _FIXED.get(kind):
        layout, make = fixed
        if offset + layout.size > limit:
            raise _Unreadable
        return make(*layout.unpack_from(encoded, offset)), offset + layout.size
    match chr(kind):
        case "S":
            begin, end = _extent(encoded, offset, limit)
            return encoded[begin:end].decode(errors="backslashreplace"), end
        case "x":
            begin, end = _extent(encoded, offset, limit)
            return encoded[begin:end], end
        case "F":
            return _table(encoded, offset, limit, levels - 1)
        case "A":
            return _list(encoded, offset, limit, levels - 1)
        case "V":
            return None, offset
        case _:
            raise _Unreadable
