"""Parts of a stream that are packed by themselves make one stream of gzip, in whatever order."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.api import packing


@given(st.lists(st.tuples(st.binary(max_size=5000), st.booleans()), max_size=8))
def test_parts_unpack_as_they_come(parts: list[tuple[bytes, bool]]) -> None:
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert unpacking.decompress(packing.STREAM_BEGINS) == b""
    for content, is_of_one in parts:
        packed = packing.part_of_one(content) if is_of_one else packing.part(content)
        assert unpacking.decompress(packed) == content
    assert unpacking.unused_data == b""


def test_a_part_of_one_has_so_much_room() -> None:
    assert len(packing.part_of_one(bytes(65535))) == 65540
    with pytest.raises(ValueError, match="65536 bytes are more than 65535"):
        packing.part_of_one(bytes(65536))


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("", False), ("identity", False), ("gzip;q=0", False), ("xgzip", False)],
)
def test_who_takes_gzip(accepted: str, takes: bool) -> None:
    assert packing.is_taken(accepted) is takes
