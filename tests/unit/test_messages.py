"""What is kept of the headers of a message that comes back: ours only, each within bounds."""

import pytest

from publisher.arrivals import messages


@pytest.mark.parametrize(
    ("claimed", "believed"),
    [(3, 3), (0, 0), (-1, 0), (1000, 1000), (1001, 1000), (2**63 - 1, 1000), (True, 0), ("3", 0), (3.0, 0), (None, 0)],
)
def test_attempts_are_a_number_within_bounds(claimed: object, believed: int) -> None:
    headers = {messages.ATTEMPTS: claimed}
    assert messages.attempts(headers) == believed
    assert messages.kept(headers) == ({messages.ATTEMPTS: believed} if believed else {})


@pytest.mark.parametrize("again", ["retry", "replay"])
def test_a_retry_and_a_replay_stay_what_they_are(again: str) -> None:
    assert messages.kept({messages.AGAIN: again}) == {messages.AGAIN: again}


@pytest.mark.parametrize("again", ["", "Replay", "x" * 100_000, 1, True, None, ["replay"], {"replay": 1}])
def test_no_other_word_makes_a_message_one_that_comes_again(again: object) -> None:
    assert messages.kept({messages.AGAIN: again}) == {}


@pytest.mark.parametrize(("probed", "is_kept"), [(True, True), (False, False), (1, False), ("true", False)])
def test_only_the_truth_says_that_a_message_was_tried(probed: object, is_kept: bool) -> None:
    assert messages.kept({messages.PROBED: probed}) == ({messages.PROBED: True} if is_kept else {})


@pytest.mark.parametrize(
    ("etag", "is_kept"), [("a" * 32, True), ("x" * 201, False), ("", False), (1, False), (["a"], False), (None, False)]
)
def test_the_version_that_a_message_is_about_is_text_within_bounds(etag: object, is_kept: bool) -> None:
    assert messages.kept({messages.ETAG: etag}) == ({messages.ETAG: etag} if is_kept else {})


@pytest.mark.parametrize(
    ("again", "allowed", "is_kept"),
    [("replay", "missing columns", True), ("retry", "missing columns", False), ("replay", "all", False),
     ("replay", ["missing columns"], False), (None, "missing columns", False)],
)  # fmt: skip
def test_what_a_person_lets_a_version_do_stays_with_its_replay(again: object, allowed: object, is_kept: bool) -> None:
    headers = {messages.AGAIN: again, messages.ALLOWED: allowed}
    assert (messages.ALLOWED in messages.kept(headers), messages.allows_missing(headers)) == (is_kept, is_kept)


def test_nothing_is_kept_of_other_headers() -> None:
    others = (messages.REASON, messages.ERROR, messages.FINGERPRINT, messages.KEY, messages.DEAD_AT)
    assert messages.kept(dict.fromkeys((*others, "x-death", "traceparent", ""), "x")) == {}


def test_a_history_has_its_last_twenty_lines_each_cut() -> None:
    headers = {messages.HISTORY: [f"{number} {'x' * 1000}" for number in range(30)]}
    lines = messages.lines_of(headers)
    assert [line.split()[0] for line in lines] == [str(number) for number in range(10, 30)]
    assert {len(line) for line in lines} == {300}
    assert messages.kept(headers) == {messages.HISTORY: lines}


def test_lines_that_are_no_text_are_told_as_text() -> None:
    assert messages.lines_of({messages.HISTORY: [1, None, {"a": 1}]}) == ["1", "None", "{'a': 1}"]


@pytest.mark.parametrize("senseless", [None, "a line", b"a line", {"deep": 1}, 7, []])
def test_a_history_that_is_none_has_no_lines(senseless: object) -> None:
    assert messages.lines_of({messages.HISTORY: senseless}) == []
    assert messages.kept({messages.HISTORY: senseless}) == {}
