"""Files of all habits in any mix are read as they were written, others in each run; many more by `make fuzz`."""

import os
from collections.abc import Sequence
from random import SystemRandom

import pytest
from hypothesis.strategies import SearchStrategy

from tests.fuzz import oracle, run
from tests.fuzz.oracle import Differs
from tests.fuzz.writing import Fate, Habit, WrittenFile, written_files

GOOD = frozenset({
    Habit.MARK, Habit.UTF_16, Habit.GZIP, Habit.FULL, Habit.QUOTES_EVERYWHERE, Habit.SHORT_ROWS, Habit.MENDED_IDS,
    Habit.NOTHING, Habit.BLANK_LINES,
})  # fmt: skip
"""Habits of files whose rows are all good."""


def play(count: int, written: SearchStrategy[WrittenFile] = run.FILES) -> None:
    """As many other files in each run, unless it is told which."""
    seed = int(os.environ.get("FUZZ_SEED") or SystemRandom().getrandbits(32))
    if difference := run.play(seed, count, written=written):
        pytest.fail(f"FUZZ_SEED={seed} python -m pytest {__file__} repeats it\n{difference}", pytrace=False)


def test_no_ticket_is_lost_without_a_reject_none_invented_and_none_changed() -> None:
    play(300)


def test_quotes_astray_lose_at_most_the_rows_that_they_are_in() -> None:
    play(150, written_files(most_stray=5, habits=GOOD).map(one_that_may_not_fail))


def one_that_may_not_fail(file: WrittenFile) -> WrittenFile:
    assert not file.may_fail
    return file


def test_a_file_that_differs_is_told_with_what_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "_values", lambda _: {"ticket_id": "another"})
    monkeypatch.setenv("FUZZ_SEED", "7")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)^FUZZ_SEED=7 python -m pytest .*had to be"):
        play(50)


@pytest.mark.parametrize(("text", "fields"), [
    ('a,"b,c",d', ["a", "b,c", "d"]),
    ('a, "b ""c""\nd"', ["a", 'b "c"\nd']),
    ('"a" ,b', ["a", "b"]),
    ('6" duct,', ['6" duct', ""]),
    ('a,"b', None),
    ('a,"b"c', None),
])  # fmt: skip
def test_the_oracle_reads_as_the_rfc_has_it(text: str, fields: Sequence[str] | None) -> None:
    assert oracle.alone(text, ",") == fields


def test_the_oracle_tells_a_ticket_that_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "_values", lambda _: {"ticket_id": "another"})
    assert "had to be" in (run.play(1, 50) or "")


def test_a_seed_repeats_the_same_files() -> None:
    def contents(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        assert run.play(seed, 20, lambda file: seen.append(file.content)) is None
        return seen

    assert contents(7) == contents(7) != contents(8)


def test_a_run_says_its_seed_and_fails_with_the_smallest_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def differs(_: WrittenFile) -> None:
        raise Differs("as it was not written")

    monkeypatch.setattr(run, "judge", differs)
    assert run.main(["--files", "3", "--seed", "9", "--processes", "0"]) == 1
    said = capsys.readouterr().out
    assert "seed 9" in said
    assert "as it was not written" in said


def test_files_have_rows_of_every_fate() -> None:
    seen: set[Fate] = set()
    assert run.play(3, 300, lambda file: seen.update(piece.fate for piece in file.pieces)) is None
    assert seen == set(Fate)
