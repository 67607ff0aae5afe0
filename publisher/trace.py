"""The id that all has in common that came of one event, as W3C Trace Context has it. Pure.

It comes with an HTTP request or a message as `traceparent`, is sent on with each message, and stands in the log. A
header that is none counts as none: the standard wants it so, and an id decides nothing.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
SAMPLED = 1
_KNOWN_FLAGS = 3
"""Sampled, and: the id is random."""
_PARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<id>[0-9a-f]{32})-(?!0{16})(?P<parent>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.DOTALL,
)
_MEMBER = re.compile(
    r"(?P<key>[a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32
_STATE_CHARACTERS = 512
_LONGEST = 8192
"""Characters of a header that is looked at at all."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Which trace something belongs to, and what of it came before: `parent`, of which `flags` tell. All in hex.

    `state` is what others have to say of it. `is_new` where nothing came before that could be named.
    """

    id: str
    parent: str
    flags: int = SAMPLED
    state: str = ""
    is_new: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, body: bytes) -> Self:
        """For a message that came without one: the same whenever it comes, so that a redelivery is no other trace.

        It counts as sampled, or nobody would record what comes of it.
        """
        digest = hashlib.sha256(body).hexdigest()
        return cls(digest[:32], digest[32:48], is_new=True)

    @classmethod
    def read(cls, parents: Sequence[object], states: Sequence[object] = ()) -> Self | None:
        """What headers of these names tell, as often as they came; None where that is none."""
        parent = _text(parents[0]) if len(parents) == 1 else ""
        found = _PARENT.fullmatch(parent)
        if found is None or (found["version"] == "00" and found["more"]):
            return None
        return cls(found["id"], found["parent"], int(found["flags"], 16) & _KNOWN_FLAGS, _state(states))

    @classmethod
    def of_headers(cls, headers: Mapping[str, Any]) -> Self | None:
        """The same of a message."""
        return cls.read([headers.get(TRACEPARENT)], [headers.get(TRACESTATE)])

    @classmethod
    def of_text(cls, text: str | None) -> Self | None:
        """What `text` was kept of."""
        parent, _, state = (text or "").partition(" ")
        return cls.read([parent], [state])

    @property
    def traceparent(self) -> str:
        return f"00-{self.id}-{self.parent}-{self.flags:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """To be sent on with."""
        return {TRACEPARENT: self.traceparent} | ({TRACESTATE: self.state} if self.state else {})

    @property
    def text(self) -> str:
        """All of it in one, to be kept."""
        return f"{self.traceparent} {self.state}".rstrip()


def _text(value: object) -> str:
    """Some clients send text as bytes."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip(" \t") if isinstance(value, str) and len(value) <= _LONGEST else ""


def _state(values: Sequence[object]) -> str:
    """Its first members, as many as have room; nothing of a list that is none."""
    members: dict[str, str] = {}
    for member in filter(None, (part.strip(" \t") for part in ",".join(map(_text, values)).split(","))):
        found = _MEMBER.fullmatch(member)
        if found is None or found["key"] in members or len(members) >= _MOST_MEMBERS:
            return ""
        members[found["key"]] = member
    kept = ""
    for member in members.values():
        more = f"{kept},{member}" if kept else member
        if len(more) > _STATE_CHARACTERS:
            break
        kept = more
    return kept
