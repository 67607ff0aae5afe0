"""Trace context as W3C has it: what is one is carried on, what is none counts as none, and nothing else gets by."""

import re
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.follow_ons.telling import tell_done
from publisher.arrivals import messages
from publisher.broker import publishing
from publisher.broker.topology import Queue
from publisher.log import following
from publisher.trace import TRACEPARENT, TRACESTATE, Trace

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{ID}-{PARENT}-01"
HEX = st.text("0123456789abcdef", min_size=1)
ids, parents = (
    st.text("0123456789abcdef", min_size=size, max_size=size).filter(lambda text: text.strip("0") != "")
    for size in (32, 16)
)
keys = st.from_regex(r"[a-z0-9][a-z0-9_\-*/@]{0,20}", fullmatch=True)
values = st.from_regex(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,20}[\x21-\x2b\x2d-\x3c\x3e-\x7e]", fullmatch=True)


@given(ids, parents, st.integers(0, 3), st.dictionaries(keys, values, max_size=12))
def test_what_is_sent_on_is_read_as_it_was(trace_id: str, parent: str, flags: int, state: dict[str, str]) -> None:
    told = ",".join(f"{key}={value}" for key, value in state.items())
    trace = Trace.read([f"00-{trace_id}-{parent}-{flags:02x}"], [told])
    assert trace is not None
    assert (trace.id, trace.parent, trace.flags, trace.is_new) == (trace_id, parent, flags, False)
    assert Trace.of_headers(trace.headers) == Trace.of_text(trace.text) == trace
    # Blanks at the ends of a member are no part of it.
    assert trace.state == ",".join(f"{key}={value}" for key, value in state.items())


@given(st.one_of(st.text(), st.binary(), st.none(), st.integers(), st.lists(st.text())), st.text())
@example(f"00-{ID}-{PARENT}-01\n", "a=b")
@example(GIVEN, "a=b\x1b[31m")
@example(GIVEN, "a=b,\r\nevil: 1")
@example(GIVEN.encode(), "")
def test_whatever_comes_nothing_but_a_trace_gets_through(parent: object, state: str) -> None:
    trace = Trace.of_headers({TRACEPARENT: parent, TRACESTATE: state})
    if trace is not None:
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", trace.traceparent)
        assert re.fullmatch(r"[\x20-\x7e]{0,512}", trace.state)
        assert "\n" not in trace.text


@pytest.mark.parametrize(
    "parent",
    [
        "",
        f"00-{ID}-{PARENT}",
        f"00-{ID}-{PARENT}-1",
        f"00-{ID}-{PARENT}-01-",
        f"00-{ID}-{PARENT}-01-more",
        f"00-{ID.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"ff-{ID}-{PARENT}-01",
        f"0-{ID}-{PARENT}-01",
        f"00-{ID[:-1]}-{PARENT}-01",
        f"00-{ID[:-1]}g-{PARENT}-01",
        f"cc-{ID}-{PARENT}-01.more",
        f"00_{ID}_{PARENT}_01",
        GIVEN + "x" * 10_000,
    ],
)
def test_what_is_none_counts_as_none(parent: str) -> None:
    assert Trace.read([parent], ["a=b"]) is None
    assert Trace.of_headers({TRACEPARENT: parent}) is None


def test_two_are_none() -> None:
    assert Trace.read([GIVEN, GIVEN]) is None
    assert Trace.read([]) is None


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (f" {GIVEN}\t", 1),
        (f"cc-{ID}-{PARENT}-01-what-comes", 1),
        (f"01-{ID}-{PARENT}-ff", 3),
        (f"00-{ID}-{PARENT}-00", 0),
    ],
)
def test_what_a_later_version_has_beyond_ours_is_left(parent: str, flags: int) -> None:
    trace = Trace.read([parent])
    assert trace is not None
    assert trace.traceparent == f"00-{ID}-{PARENT}-{flags:02x}"


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["a=1"], "a=1"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["a=1 , b=2,,"], "a=1,b=2"),
        (["a@b=1,0c=x y"], "a@b=1,0c=x y"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a=1,b"], ""),
        (["a="], ""),
        (["a=\x00"], ""),
        (["a=é"], ""),
        ([",".join(f"k{number}=1" for number in range(33))], ""),
        ([",".join(f"k{number}={'x' * 100}" for number in range(9))], ",".join(f"k{n}={'x' * 100}" for n in range(4))),
    ],
)
def test_of_what_others_say_the_first_members_are_kept_or_nothing(states: list[str], kept: str) -> None:
    trace = Trace.read([GIVEN], states)
    assert trace is not None
    assert trace.state == kept


@given(st.binary())
def test_a_message_that_came_without_one_has_the_same_each_time(body: bytes) -> None:
    trace = Trace.of(body)
    assert trace.is_new
    assert trace == Trace.of(body) == Trace.of_headers(trace.headers)
    assert trace != Trace.of(body + b"x")


def test_every_message_is_sent_with_one_beside_its_own_headers() -> None:
    trace = Trace.read([GIVEN], ["a=1"])
    assert trace is not None
    own = {messages.AGAIN: "retry"}
    sent: Any = publishing.retry(Queue.FILES, b"{}", trace, own, delay=5).properties().headers
    assert sent == {messages.AGAIN: "retry", TRACEPARENT: GIVEN, TRACESTATE: "a=1"}
    assert messages.kept(sent) == own, "it steers nothing"
    begun = publishing.arrival(b"{}").properties().headers
    assert begun == Trace.of(b"{}").headers


def test_a_line_names_a_hundred_of_those_whom_a_follow_on_was_for_and_others_name_the_rest() -> None:
    traces = [Trace.of(b"%d" % number) for number in range(250)]
    ids = [trace.id for trace in traces]
    with structlog.testing.capture_logs() as lines:
        tell_done("history", [*traces, traces[0]], requests=251)
    assert [line["event"] for line in lines] == ["history", "also for", "also for"]
    assert lines[0]["requests"] == 251
    assert [name for line in lines for name in line["trace_ids"]] == ids


def test_what_is_told_meanwhile_has_the_id() -> None:
    trace = Trace.of(b"{}")
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        with following(trace):
            structlog.get_logger().info("within")
        structlog.get_logger().info("behind")
    assert [line.get("trace_id") for line in lines] == [trace.id, None]
