"""Packing what is sent: an answer for one, and parts of a stream for all who read it.

A part of a stream is packed by itself, so it is packed once and goes into each stream as it is, whatever that had
before. Such a stream has no end of its own, which would tell of all its parts: it ends with its connection.
"""

import re
import struct
import zlib

_LEVEL = 2
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
STREAM_BEGINS = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
"""Of a gzip stream, as RFC 1952 has it: deflated, no flags, no time, an unknown system."""
_MOST_STORED = 0xFFFF


def is_taken(accepted: str) -> bool:
    """Whether gzip is, by the header `Accept-Encoding`."""
    return _GZIP.search(accepted) is not None


def part(content: bytes) -> bytes:
    """Of a stream, packed; it ends on a whole byte."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush(zlib.Z_SYNC_FLUSH)


def part_of_one(content: bytes) -> bytes:
    """Of a stream, as it is: for a short part that only one reader is sent, which packing would cost more than sending.

    Raises: ValueError, for more bytes than such a part has room for.
    """
    if len(content) > _MOST_STORED:
        raise ValueError(f"{len(content)} bytes are more than {_MOST_STORED}")
    return struct.pack("<BHH", 0, len(content), len(content) ^ _MOST_STORED) + content
