"""Where the files of each feed lie in the bucket. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

CHANGES = "changes/"


@dataclass(frozen=True, slots=True)
class Folder:
    """Of one feed: new files in `changes`, applied ones in `processed`. `prefix` is empty or ends with `/`."""

    feed: str
    prefix: str

    @property
    def changes(self) -> str:
        return f"{self.prefix}{CHANGES}"

    @property
    def processed(self) -> str:
        return f"{self.prefix}processed/"


def folder_of(folders: Iterable[Folder], key: str) -> Folder | None:
    """The one whose `changes` or `processed` has the key."""
    return next((folder for folder in folders if key.startswith((folder.changes, folder.processed))), None)
