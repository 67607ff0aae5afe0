"""What strangers wrote neither steers a terminal nor looks like a line of ours."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from publisher import log
from publisher.terminal import by_folder, fitting, moment, printable

HOSTILE = "a\x1b[2J\r\n\x07\u202e\u2028\ud800\x00\x9b31m"


@given(st.text(st.characters()) | st.just(HOSTILE))
def test_nothing_but_printable_characters_is_left(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text, lines=True).replace("\n", "").isprintable()


@given(st.text().filter(str.isprintable))
def test_text_that_is_printable_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_log_line_steers_a_terminal(capfd: pytest.CaptureFixture[str], log_format: log.LogFormat) -> None:
    try:
        log.configure(log_format)
        structlog.get_logger().warning("file", key=HOSTILE, detail=f"{HOSTILE} of it")
    finally:
        structlog.reset_defaults()
    shown = capfd.readouterr().err
    assert shown.endswith("\n")
    assert shown[:-1].isprintable(), shown


def test_a_moment_is_told_as_files_and_as_servers_tell_it() -> None:
    assert moment(datetime(2026, 6, 25, 11, 20, 5, 123456, UTC)) == "2026-06-25 14:20:05 EAT (11:20:05 UTC)"
    late = datetime(2026, 6, 26, 0, 20, 5, 123456, timezone(timedelta(hours=3)))
    told = "2026-06-26 00:20:05.123 EAT (2026-06-25 21:20:05.123 UTC)"
    assert moment(late, milliseconds=True) == told


@given(st.lists(st.text("abc-/.", min_size=1, max_size=100)), st.integers(20, 100))
def test_a_line_is_parted_between_its_words_and_no_word_is_cut(words: list[str], width: int) -> None:
    lines = fitting(" ".join(words), width, "    ").splitlines()
    assert " ".join(lines).split() == words
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)
    assert fitting(" ".join(words), None) == " ".join(words)


def test_a_folder_is_told_once() -> None:
    named = by_folder([("a/b/one.csv", 1), ("c/two.csv", 2), ("a/b/three.csv", 3), ("four", 4)])
    assert named == {"a/b/": [("one.csv", 1), ("three.csv", 3)], "c/": [("two.csv", 2)], "": [("four", 4)]}
