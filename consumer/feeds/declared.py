"""The declarations: the package's and the operator's own, checked once, before anything is touched."""

import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Protocol

from pydantic import ValidationError

from consumer.feeds.feed import Feed, Feeds, overlapping
from consumer.settings import FeedsSettings
from publisher.errors import Misconfigured


class _File(Protocol):
    @property
    def name(self) -> str: ...
    def read_text(self, encoding: str | None = None) -> str: ...


def declared_feeds(settings: FeedsSettings) -> Feeds:
    """Read every declaration; one of the operator's takes the place of the package's own of the same name.

    Raises: Misconfigured, with file and field.
    """
    found = {feed.name: feed for feed in map(read_feed, _packaged())}
    if settings.folder is not None:
        for file in sorted(settings.folder.glob("*.toml")):
            feed = read_feed(file)
            found[feed.name] = feed
    if twice := overlapping(found.values()):
        raise Misconfigured(
            f"feeds {twice[0].name!r} and {twice[1].name!r} have prefixes {twice[0].prefix!r} and {twice[1].prefix!r}: "
            "a key could be of both"
        )
    former = settings.former_prefix
    if former is not None and f"{former.strip('/')}/".lstrip("/") not in {feed.prefix for feed in found.values()}:
        raise Misconfigured(
            f"FLEETTICKETS_PREFIX is {former!r}, and no feed has that prefix: it stands in the feed's declaration, of "
            "which FLEETTICKETS_FEEDS_DIR can have one of your own; see docs/feeds.md"
        )
    everything = Feeds(found.values())
    return everything.narrowed(settings.names)


def read_feed(file: _File) -> Feed:
    """Read one declaration, `<name>.toml`.

    Raises: Misconfigured, with file and field.
    """
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
        feed = Feed.model_validate(given)
    except OSError as error:
        raise Misconfigured(f"{file.name}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file.name}: {error}") from None
    except ValidationError as error:
        raise Misconfigured(f"{file.name}: {'; '.join(_complaints(error))}") from None
    if file.name != f"{feed.name}.toml":
        raise Misconfigured(f"{file.name}: it declares {feed.name!r}, so its name is {feed.name}.toml")
    return feed


def _packaged() -> list[_File]:
    return [file for file in resources.files("consumer.feeds").iterdir() if file.name.endswith(".toml")]


def _complaints(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        place = ".".join(str(part) for part in fault["loc"])
        told = fault["msg"].removeprefix("Value error, ")
        yield f"{place}: {told}" if place else told


def packaged_feeds() -> Feeds:
    """Those that come with the program."""
    return declared_feeds(FeedsSettings.model_construct(names=(), folder=None, former_prefix=None))
