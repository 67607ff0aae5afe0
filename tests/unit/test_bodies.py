"""Answers that are kept: by their version, for a moment without a look, and so many bytes of them."""

from datetime import UTC, datetime, timedelta

from consumer.api.bodies import Bodies, Stamp, tag_of

MINUTE = datetime(2026, 6, 25, 12, 1, tzinfo=UTC)
WRITTEN_AT = MINUTE - timedelta(seconds=3)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made_in(clock: Clock, seconds: float) -> str:
    clock.now += seconds
    return "x" * 1000


def test_an_answer_stands_for_ten_times_as_long_as_it_took_and_two_seconds_at_most() -> None:
    clock = Clock()
    bodies = Bodies(now=clock)
    for took, stands in ((0.01, 0.1), (0.1, 1.0), (3.0, 2.0)):
        body = bodies.keep("asked", 7, "tag", lambda took=took: made_in(clock, took))  # type: ignore[misc]
        assert (body.version, body.plain) == (7, b"x" * 1000)
        clock.now += 0.9 * stands
        assert bodies.recent("asked") is body
        clock.now += 0.2 * stands
        assert bodies.recent("asked") is None
        assert bodies.recent("asked", is_made_anew=True) is body, "who makes it anew is not waited for"
        clock.now += stands
        assert bodies.recent("asked", is_made_anew=True) is None
        assert bodies.kept("asked", "tag") is body, "it is the answer of its version still"
    assert bodies.recent("another") is None


def test_so_many_bytes_are_kept() -> None:
    clock = Clock()
    size = len(Bodies(now=clock).keep("one", 1, "tag", lambda: made_in(clock, 1)).packed)
    bodies = Bodies(2 * size, clock)
    for asked in ("one", "two", "one", "three"):
        bodies.keep(asked, 1, "tag", lambda: made_in(clock, 1))
    assert [bodies.kept(asked, "tag") is not None for asked in ("one", "two", "three")] == [True, False, True]


def test_a_tag_is_of_the_question_the_version_when_it_was_written_and_the_minute_if_that_counts() -> None:
    stamps = [
        Stamp(version, written_at, minute)
        for version in (1, 2) for written_at in (WRITTEN_AT, None) for minute in (MINUTE, None)
    ]  # fmt: skip
    tags = {tag_of(asked, stamp) for asked in "ab" for stamp in stamps}
    assert len(tags) == 16
    assert tag_of("a", Stamp(1, WRITTEN_AT, MINUTE)) in tags
