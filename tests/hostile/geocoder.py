"""A provider of places that fails, and feeds that would spend its quota on places that there are not."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.doubles.geocoder import GARBAGE, Fault
from tests.hostile.hostility import Act, Hostility
from tests.stage.feeds import csv

PER_DAY = 500
"""Requests that the provider's account allows: many times what the feed needs, and a quarter of one made-up file."""
MADE_UP = "Made up"
_POINT = (-1.2676, 36.8108)


def where(name: str) -> tuple[float, float] | None:
    """What the provider knows: every place but the made-up ones."""
    return None if name.startswith(MADE_UP) else _POINT


def _made_up(act: Act) -> None:
    """One file names four days' worth of places; the next file's place is found all the same."""
    made_up = csv([act.ticket() | {"cluster": f"{MADE_UP} {act.number}-{number}"} for number in range(2000)])
    act.has_to_be_applied(act.good_file(made_up), "2,000 made-up clusters are not applied")
    act.hold()
    row = act.ticket() | {"cluster": f"Town of act {act.number}"}
    act.good_file(csv([row]))
    placed = "SELECT 1 FROM tickets.inc WHERE ticket_id = %s AND geom IS NOT NULL"
    act.wait_for(
        lambda: bool(act.stage.query(placed, row["ticket_id"])), "no other place is found beside 2,000 made-up clusters"
    )


def _failing(fault: Fault) -> Callable[[Act], None]:
    def play(act: Act) -> None:
        provider = act.world.provider
        provider.fault(fault, times=8)
        row = act.ticket() | {"cluster": f"Town of act {act.number}"}
        act.good_file(csv([row]))
        act.hold()
        provider.heal()

    return play


def _unset(act: Act) -> None:
    """Its point is taken away while files about the cluster come; no ticket may stay at a point that nobody has."""
    cluster = f"Town of act {act.number}"
    act.good_file(csv([act.ticket() | {"cluster": cluster}]))
    with ThreadPoolExecutor(2) as threads:
        unsetting = [
            threads.submit(act.stage.run, "geocode", "unset", "--cluster", cluster, DATABASE_URL=act.stage.database)
            for _ in range(2)
        ]
        for _ in range(10):
            act.good_file(csv([act.ticket() | {"cluster": cluster}]))
        for command in unsetting:
            if "Traceback" in command.result().stderr:
                act.complain(f"geocode unset: {command.result().stderr[-1000:]}")


HOSTILITIES = [
    Hostility("2,000 made-up clusters", "PUT", _made_up),
    Hostility("a provider that answers 500", "nobody", _failing(Fault(500, b"{}"))),
    Hostility("a provider that answers nonsense", "nobody", _failing(Fault(200, GARBAGE))),
    Hostility("a provider that hangs up", "nobody", _failing(Fault(cut="before"))),
    Hostility("a provider that takes long", "nobody", _failing(Fault(delay=8))),
    Hostility("a point taken away beside files of its cluster", "nobody", _unset),
]
