"""Which feeds a command is about: those that the settings say, or the ones that it was given."""

from collections.abc import Iterable

from consumer.feeds.declared import declared_feeds
from consumer.feeds.feed import Feed, Feeds
from consumer.settings import FeedsSettings
from publisher.arrivals.folders import Folder
from publisher.errors import Misconfigured
from publisher.settings import load


def served_feeds(names: Iterable[str] | None = ()) -> Feeds:
    """Those that the settings say, or of these the ones of the given names.

    Raises: Misconfigured.
    """
    return declared_feeds(load(FeedsSettings)).narrowed(names or ())


def one_feed(name: str | None) -> Feed:
    """The feed that a local file is of; the only one that is served needs no name.

    Raises: Misconfigured.
    """
    served = served_feeds([name] if name else []).served
    if len(served) > 1:
        raise Misconfigured(f"say whose file it is: --feed {' or --feed '.join(feed.name for feed in served)}")
    return served[0]


def served_folders(names: Iterable[str]) -> tuple[Folder, ...]:
    """Where in the bucket they are.

    Raises: Misconfigured.
    """
    return served_feeds(names).folders
