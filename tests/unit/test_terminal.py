"""What strangers wrote neither steers a terminal nor looks like a line of ours."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from publisher import log
from publisher.terminal import printable

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
