"""The declarations: the package's and the operator's own, checked once, before anything is touched."""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from consumer.feeds.feed import Feed, Feeds, FollowOn, overlapping, sharing_a_relation
from consumer.settings import FeedsSettings
from publisher.errors import Misconfigured


class _File(Protocol):
    @property
    def name(self) -> str: ...
    def read_text(self, encoding: str | None = None) -> str: ...


@dataclass(frozen=True, slots=True)
class Declaration:
    """A feed, and the operator's file that declares it; None for one that comes with the program."""

    feed: Feed
    file: Path | None


def declared_feeds(settings: FeedsSettings) -> Feeds:
    """Read every declaration; one of the operator's takes the place of the package's own of the same name.

    Raises: Misconfigured, with file and field.
    """
    found = [declaration.feed for declaration in declarations(settings)]
    require_apart(found)
    former = settings.former_prefix
    if former is not None and f"{former.strip('/')}/".lstrip("/") not in {feed.prefix for feed in found}:
        raise Misconfigured(
            f"FLEETTICKETS_PREFIX is {former!r}, and no feed has that prefix: it stands in the feed's declaration, of "
            "which FLEETTICKETS_FEEDS_DIR can have one of your own; see docs/feeds.md"
        )
    return Feeds(found).narrowed(settings.names)


def declarations(settings: FeedsSettings) -> list[Declaration]:
    """What `declared_feeds` reads, by name, and where it stands.

    Raises: Misconfigured, with file and field.
    """
    found = {feed.name: Declaration(feed, None) for feed in packaged_feeds()}
    for file in operators_files(settings):
        feed = read_feed(file)
        found[feed.name] = Declaration(feed, file)
    return [found[name] for name in sorted(found)]


def operators_files(settings: FeedsSettings) -> list[Path]:
    """The declarations of the operator's own, not read."""
    return sorted(settings.folder.glob("*.toml")) if settings.folder is not None else []


def require_apart(feeds: Iterable[Feed]) -> None:
    """Raises: Misconfigured, when a key could be of two of them, or a table or index in the database, or a closure."""
    feeds = list(feeds)
    if twice := overlapping(feeds):
        raise Misconfigured(
            f"feeds {twice[0].name!r} and {twice[1].name!r} have prefixes {twice[0].prefix!r} and {twice[1].prefix!r}: "
            "a key could be of both"
        )
    if shared := sharing_a_relation(feeds):
        first, second, relation = shared
        raise Misconfigured(
            f"feeds {first.name!r} and {second.name!r} would both have {relation} in the database, where tables and "
            "indexes share their names: call one of them otherwise"
        )
    reported = {feed.name for feed in packaged_feeds() if FollowOn.HISTORY in feed.follow_ons}
    for feed in feeds:
        if FollowOn.HISTORY in feed.follow_ons and feed.name not in reported:
            raise Misconfigured(
                f"{feed.name}.toml: follow_ons: 'history' is for {' and '.join(sorted(reported))} alone: closures, "
                "daily snapshots and dashboard are of those tickets, and others would be counted among them; every "
                "content of a ticket is kept for each feed without it"
            )


def read_feed(file: _File) -> Feed:
    """Read one declaration, `<name>.toml`.

    Raises: Misconfigured, with file and field.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{file.name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{file.name}: {error}") from None
    feed = parse_feed(file.name, text)
    if file.name != f"{feed.name}.toml":
        raise Misconfigured(f"{file.name}: name: it declares {feed.name!r}, so the file's name is {feed.name}.toml")
    return feed


def parse_feed(file: str, text: str) -> Feed:
    """The feed that the text of a file declares.

    Raises: Misconfigured, with file and field.
    """
    try:
        return Feed.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Misconfigured(f"{file}: {error}") from None
    except ValidationError as error:
        raise Misconfigured(f"{file}: {'; '.join(_complaints(error))}") from None


def _packaged() -> list[_File]:
    return [file for file in resources.files("consumer.feeds").iterdir() if file.name.endswith(".toml")]


def _complaints(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        place = ".".join(str(part) for part in fault["loc"])
        told = fault["msg"].removeprefix("Value error, ")
        yield f"{place}: {told}" if place else told


def packaged_feeds() -> Feeds:
    """Those that come with the program."""
    return Feeds(map(read_feed, _packaged()))
