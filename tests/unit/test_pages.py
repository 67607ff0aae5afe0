"""What the pages say can be followed: commands and options exist, links lead somewhere, the README is one screen."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from consumer.program import program

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
GOALS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
COMMAND: Any = typer.main.get_command(program)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ENDS = {"|", "||", "&&", ";", ">", ">>", "<", "2>&1", "#", "&"}
_CHANGES_OF_BEFORE = "CHANGELOG.md"
"""It tells of options that are no more, too."""
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def shown(page: Path) -> Iterator[list[str]]:
    """Every command line that a page has, by its words; of one in a text those with something behind the program."""
    text = page.read_text()
    fenced = [body for language, body in _FENCED.findall(text) if language in {"sh", "bash", "console"}]
    lines = [line for body in fenced for line in re.sub(r"\\\n\s*", " ", body).splitlines()]
    for line in [*lines, *_CODE.findall(_FENCED.sub("", text))]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quote that has no end, as in a text
            words = line.split()
        for place, word in enumerate(words):
            is_value = place > 0 and words[place - 1].startswith("-")
            if Path(word).name in {"fleettickets", "make"} and not word.endswith("/") and not is_value:
                yield [Path(word).name, *until_end(words[place + 1 :])]


def until_end(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in _ENDS:
            return
        yield word.rstrip(",")
        if word.endswith(","):  # of a sentence
            return


def wrong_with(words: list[str]) -> str | None:
    command, left, names = COMMAND, words[1:], ["fleettickets"]
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        if left[0] not in command.commands:
            return f"no command {' '.join([*names, left[0]])}"
        command, names, left = command.commands[left[0]], [*names, left[0]], left[1:]
    options = {"-h", "--help"}.union(
        *(one.opts for one in command.params), *(one.secondary_opts for one in command.params)
    )
    unknown = [word for word in left if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options]
    return f"{' '.join(names)} has no {unknown[0]}" if unknown else None


@each_page
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    if page.name == _CHANGES_OF_BEFORE:
        return
    for words in shown(page):
        if words[0] == "make":
            goals = [word for word in words[1:2] if re.fullmatch(r"[a-z-]+", word)]
            assert set(goals) <= GOALS, f"make {goals}"
        elif len(words) > 1 and re.fullmatch(r"-{0,2}[a-z][a-z-]*", words[1]):
            assert wrong_with(words) is None, f"{words}: {wrong_with(words)}"


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub and Forgejo make them of headings."""
    text = _FENCED.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), link


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    linked = {link.partition("#")[0].rstrip("/") for link in _LINK.findall(index)}
    there = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ""} and path.name != "README.md"}
    assert there <= linked


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 50
