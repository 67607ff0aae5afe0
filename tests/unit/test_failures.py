"""What becomes of a failure: another try after a growing delay, or the dead letters."""

import pytest

from consumer.files.outcomes import UNEXPECTED, Failure
from publisher.arrivals import messages


def test_the_delays_of_an_unexpected_failure_grow_and_end() -> None:
    delays = [Failure("key", UNEXPECTED, "detail", attempts).retry_in for attempts in range(1, 7)]
    assert delays == [5, 30, 120, 600, None, None]


@pytest.mark.parametrize("attempts", [1, 4])
def test_what_no_retry_can_mend_is_a_dead_letter_at_once(attempts: int) -> None:
    assert Failure("key", "not UTF-8", "near line 3", attempts).retry_in is None


def test_a_message_keeps_the_last_lines_of_its_history() -> None:
    headers: dict[str, object] = {}
    for attempt in range(30):
        headers[messages.HISTORY] = messages.history(headers, also=f"try {attempt} failed: {'x' * 1000}")
    lines = headers[messages.HISTORY]
    assert isinstance(lines, list)
    assert [line.split()[2] for line in lines] == [str(attempt) for attempt in range(10, 30)]
    assert all(len(line) <= 300 for line in lines)


@pytest.mark.parametrize("senseless", [None, "text", {"deep": 1}, 7])
def test_a_history_that_a_stranger_wrote_is_no_reason_to_fail(senseless: object) -> None:
    (line,) = messages.history({messages.HISTORY: senseless}, also="try 1 failed")
    assert line.endswith("try 1 failed")


def test_what_is_put_aside_with_no_attempt_spent_comes_back_as_what_it_was() -> None:
    ours = {messages.AGAIN: "replay", messages.ATTEMPTS: 3, messages.HISTORY: ["a try"], messages.ETAG: "an etag"}
    ours |= {messages.REPLAYS: 2}
    assert messages.kept(ours | {"x-death": [], messages.REASON: "of an earlier death"}) == ours
