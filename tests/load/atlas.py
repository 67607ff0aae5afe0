"""What a provider may know of Nairobi's wards, and how people write them: neither as exact as we would like.

Guesses, all of them, and drawn from a fixed seed: how many names are known, what else has them, how often a word is
shortened. They ask more than the tests of single rules do, and measure no provider.
"""

import random
import re
from dataclasses import dataclass
from enum import StrEnum

from tests.doubles.geocoder import Coordinates

CITIES = {"mombasa": (-4.0435, 39.6682), "kisumu": (-0.0917, 34.7680), "nakuru": (-0.3031, 36.0800)}
KINDS = ("Road", "Estate", "Centre")
SHORT = {"Road": "Rd", "Estate": "Est", "Centre": "Ctr"}
EXPANDED = {"rd": "road", "ave": "avenue"}
"""What the provider makes of short forms; those of estates and centres are words to it that nothing has."""
CODES = (
    "OLT-{n:02}", "FAT {n}", "FDT-{n}", "GPON 0/{d}/{n}", "PON 0/1/{d}", "SPL 1:8", "NBO-{n:03}", "MDU-{n:04}",
    "MH-{n}", "PORT {d}", "ODB {n}", "KE-NBI-{n:04}", "VLAN {n}", "HWTC1234AB{n:02}", "JB {d}", "(FAT {n})",
)  # fmt: skip
STRANGE_CODES = ("SDP {n}", "ROUTER-{d}", "RSU {n}", "Chamber {d}", "NOC", "XDB {n}", "BNG", "Cage {d}")
LANDMARKS = ("opp. Shell", "near Total", "next to Quickmart", "behind Chief's Camp")


class Known(StrEnum):
    """What the provider knows of a ward's name."""

    THERE = "there"
    FIRST_ELSEWHERE = "there, and another city's is more important"
    FIRST_NEARBY = "there, and another one nearby is more important"
    IN_PART = "in part: its first word"
    ELSEWHERE = "in another city only"
    NOT = "not at all"


class Written(StrEnum):
    """What is hard about the way somebody has written it."""

    PLAIN = "as it is, in codes"
    SHORTENED = "with Rd, Est or Ctr"
    MISSPELT = "with a letter doubled, or half a double"
    UNJOINED = "without its hyphen"
    STRANGE = "with a code that is in no table"
    LANDMARK = "with a landmark"


@dataclass(frozen=True)
class Ward:
    name: str
    cluster: str
    polygon: str
    latitude: float
    longitude: float

    @property
    def names(self) -> list[str]:
        """PARKLANDS/HIGHRIDGE is two places, and people write either or both."""
        return [self.name, *self.name.split("/")] if "/" in self.name else [self.name]


@dataclass(frozen=True)
class _Entry:
    name: frozenset[str]
    city: str
    where: Coordinates
    importance: float


class Atlas:
    """Answers what a name is, the most important place first, wherever one asks from."""

    def __init__(self, wards: list[Ward], rng: random.Random) -> None:
        self.known = {ward.name: self._lot(ward, rng) for ward in wards}
        self._entries: list[_Entry] = []
        for ward in wards:
            others = [other for other in wards if other.cluster != ward.cluster]
            for name in ward.names:
                self._enter(ward, name, rng.choice(others), rng)
        for cluster in sorted({ward.cluster for ward in wards}):
            within = [ward for ward in wards if ward.cluster == cluster]
            centre = (sum(w.latitude for w in within) / len(within), sum(w.longitude for w in within) / len(within))
            self._add(cluster, "nairobi", centre, 0.45)
            self._add(cluster, *self._elsewhere(rng), 0.5)

    def __call__(self, query: str) -> list[Coordinates] | None:
        """As asked; else without what is behind the first comma; else without the last word."""
        first = query.split(",", maxsplit=1)[0]
        for wanted in (query, first, first.rpartition(" ")[0]):
            words = _words(wanted)
            found = [entry for entry in self._entries if entry.name <= words <= entry.name | {entry.city, "kenya"}]
            if found:
                return [entry.where for entry in sorted(found, key=lambda entry: -entry.importance)]
        return None

    @staticmethod
    def _lot(ward: Ward, rng: random.Random) -> Known:
        chances = {
            Known.NOT: 1 / 20, Known.ELSEWHERE: 1 / 12, Known.FIRST_NEARBY: 1 / 15, Known.FIRST_ELSEWHERE: 1 / 3,
            Known.IN_PART: 1 / 4 if " " in ward.name else 0,
        }  # fmt: skip
        rest = 1 - sum(chances.values())
        return rng.choices([*chances, Known.THERE], [*chances.values(), rest])[0]

    def _enter(self, ward: Ward, name: str, other: Ward, rng: random.Random) -> None:
        known, there = self.known[ward.name], (ward.latitude, ward.longitude)
        if known in {Known.FIRST_ELSEWHERE, Known.ELSEWHERE}:
            self._add(name, *self._elsewhere(rng), 0.6)
        if known is Known.FIRST_NEARBY:
            self._add(name, "nairobi", (other.latitude, other.longitude), 0.6)
        if known is Known.IN_PART and not any(
            entry.name == _words(name.split(maxsplit=1)[0]) for entry in self._entries
        ):
            self._add(name.split(maxsplit=1)[0], "nairobi", there, 0.4)
        if known in {Known.THERE, Known.FIRST_ELSEWHERE, Known.FIRST_NEARBY}:
            self._add(name, "nairobi", there, 0.4)
            for kind in KINDS:
                if rng.random() < 1 / 2:
                    self._add(f"{name} {kind}", "nairobi", there, 0.3)
                if known is Known.FIRST_ELSEWHERE:
                    self._add(f"{name} {kind}", *self._elsewhere(rng), 0.5)

    def _add(self, name: str, city: str, where: Coordinates, importance: float) -> None:
        self._entries.append(_Entry(_words(name), city, where, importance))

    @staticmethod
    def _elsewhere(rng: random.Random) -> tuple[str, Coordinates]:
        return rng.choice(sorted(CITIES.items()))


def _words(text: str) -> frozenset[str]:
    return frozenset(EXPANDED.get(word, word) for word in re.findall(r"[\w']+", text.casefold()))


def written(ward: Ward, rng: random.Random) -> tuple[str, Written]:
    """One way in which a ticket may have it, among codes."""
    name = rng.choice(ward.names).title()
    how = rng.choices(list(Written), [40, 25, 10, 100 if "-" in name else 0, 15, 10])[0]
    first, last = codes(CODES, rng), codes(CODES, rng)
    match how:
        case Written.SHORTENED:
            name = f"{name} {SHORT[rng.choice(KINDS)]}"
        case Written.MISSPELT:
            at = rng.choice([place for place, letter in enumerate(name) if letter.islower()])
            name = name[:at] + ("" if name[at] == name[at - 1] else name[at]) + name[at:]
        case Written.UNJOINED:
            name = name.replace("-", rng.choice(["", " "]))
        case Written.STRANGE:
            first, last = rng.choice([(codes(STRANGE_CODES, rng, 1), last), (first, codes(STRANGE_CODES, rng, 1))])
        case Written.LANDMARK:
            name = f"{name} {rng.choice(LANDMARKS)}"
        case _:
            pass
    return rng.choice((" ", " - ", " / ")).join([*first, name, *last]), how


def codes(of: tuple[str, ...], rng: random.Random, count: int | None = None) -> list[str]:
    count = rng.randrange(3) if count is None else count
    return [rng.choice(of).format(n=rng.randrange(1, 99), d=rng.randrange(1, 9)) for _ in range(count)]
