"""docs/map.svg: where the open incidents of the demo's afternoon are, as the map of the read API shows them.

The demo compares what the database holds with what is drawn here: the same files, and the same oracle.
"""

from collections import Counter
from datetime import datetime

from consumer.demo.feed import CLUSTERS, make_feeds
from consumer.demo.oracle import EAT, Values, foretell

UNTIL = datetime(2026, 6, 25, 17, 20, tzinfo=EAT)
"""The demo itself ends now; its tickets are the same, at other times."""
_FILES, _ROWS, _SEED = 24, 200, 254
"""As `make demo ARGS="--files 24"` plays them."""
_WIDTH, _HEIGHT, _MARGIN = 880, 500, 14
_WEST, _EAST, _NORTH, _SOUTH = 36.575, 36.980, -1.175, -1.377
_STATES = {
    "open": ("#d1495b", "assigned"),
    "in_progress": ("#2e86ab", "in progress"),
    "pending": ("#8d99ae", "on hold"),
}
_LABELS = {"KIL": (-96, 16), "QOA": (-96, -30), "ROY": (-50, -54), "KAS": (96, 0), "UMO": (98, -16), "PTMP": (98, 30)}
"""Beside the middle of a cluster, in pixels, where its dots or a neighbour's would be in the way."""


def open_tickets() -> list[Values]:
    """Of the incidents, in the order of their ids."""
    inc, _ = make_feeds(files=_FILES, rows=_ROWS, seed=_SEED, until=UNTIL)
    tickets = foretell(inc.files, inc.model).tickets()
    return [values for _, values in sorted(tickets.items()) if values["closed_at"] is None]


def drawing() -> str:
    found = open_tickets()
    placed = [ticket for ticket in found if ticket["latitude"] is not None]
    states = Counter(ticket["normalized_status"] for ticket in placed)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="system-ui, sans-serif">',
        "<title>Open incidents of the demo's afternoon around Nairobi, by what is being done about them</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="10" fill="#f7f5f0"/>',
        f'<path d="{_grid()}" stroke="#e4dfd4" fill="none"/>',
    ]
    for state, (colour, _) in _STATES.items():
        dots = "".join(_dot(ticket) for ticket in placed if ticket["normalized_status"] == state)
        parts.append(
            f'<path d="{dots}" stroke="{colour}" stroke-opacity="0.7" stroke-width="7" stroke-linecap="round"/>'
        )
    of_cluster = Counter(str(ticket["cluster"]) for ticket in found)
    for cluster, (_, latitude, longitude, estates) in CLUSTERS.items():
        x, y = _at(latitude, longitude)
        aside, below = _LABELS.get(cluster, (-92, 0))
        parts.append(
            f'<text x="{x + aside:.0f}" y="{y + below:.0f}" text-anchor="middle" font-size="13" fill="#22223b" '
            'stroke="#f7f5f0" stroke-width="4" paint-order="stroke">'
            f'<tspan font-weight="600">{estates[0]}</tspan> {of_cluster[cluster]}</text>'
        )
    parts += [*_legend(states, len(found), len(placed)), "</svg>"]
    return "\n".join(parts) + "\n"


def _at(latitude: float, longitude: float) -> tuple[float, float]:
    return (
        _WIDTH * (longitude - _WEST) / (_EAST - _WEST),
        _HEIGHT * (_NORTH - latitude) / (_NORTH - _SOUTH),
    )


def _dot(ticket: Values) -> str:
    x, y = _at(ticket["latitude"], ticket["longitude"])
    return f"M{x:.0f} {y:.0f}h0"


def _grid() -> str:
    """A line every twentieth of a degree, which is some 5.5 km."""
    lines = []
    for step in range(8):
        x, _ = _at(0, 36.60 + step * 0.05)
        lines.append(f"M{x:.0f} 0V{_HEIGHT}")
    for step in range(4):
        _, y = _at(-1.20 - step * 0.05, 0)
        lines.append(f"M0 {y:.0f}H{_WIDTH}")
    return "".join(lines)


def _legend(states: Counter[str], open_: int, placed: int) -> list[str]:
    left, top = _MARGIN + 6, _HEIGHT - 92
    of_open, of_placed = f"{open_:,} open incidents", f"{placed:,} of them with a place of their own"
    lines = [
        f'<text x="{left}" y="{top - 22}" font-size="18" font-weight="600" fill="#22223b">{of_open}</text>',
        f'<text x="{left}" y="{top}" font-size="13" fill="#4a4e69">{of_placed}</text>',
    ]
    for number, (state, (colour, words)) in enumerate(_STATES.items()):
        y = top + 24 + number * 20
        lines.append(f'<circle cx="{left + 5}" cy="{y - 4}" r="5" fill="{colour}"/>')
        lines.append(f'<text x="{left + 18}" y="{y}" font-size="13" fill="#4a4e69">{words} {states[state]:,}</text>')
    lines.append(
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - _MARGIN}" text-anchor="end" font-size="12" fill="#4a4e69">'
        "made-up tickets of a short demo, around Nairobi; a square is 5.5 km wide</text>"
    )
    return lines
