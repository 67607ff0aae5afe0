"""Two small pictures as SVG: bars of stages one after the other, and a line. Pure."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.bench.figures import Bar

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
WIDTH, LEFT, RIGHT, STEP, BAR = 860, 110, 90, 44, 24
_FONT = 'font-family="sans-serif" font-size="13" fill="#222"'


def bars(found: Sequence[Bar]) -> str:
    """Milliseconds to the right; each bar's stages are named under it."""
    longest = max(sum(bar.stages.values()) for bar in found)
    scale = (WIDTH - LEFT - RIGHT) / longest
    return _picture(len(found) * (STEP + 12) + 20, _bars(found, scale))


def _bars(found: Sequence[Bar], scale: float) -> Iterator[str]:
    for number, bar in enumerate(found):
        top, at = 12 + number * (STEP + 12), float(LEFT)
        yield _text(8, top + 17, bar.name)
        names = []
        for place, (stage, took) in enumerate(bar.stages.items()):
            width, colour = max(0.0, took) * scale, COLOURS[place % len(COLOURS)]
            yield f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
            names.append(f'<tspan fill="{colour}">■</tspan> {escape(stage)} {took:.1f}')
            at += width
        yield _text(at + 6, top + 17, f"{sum(bar.stages.values()):.1f} ms")
        yield f'<text x="{LEFT}" y="{top + 39}" {_FONT}>{"   ".join(names)}</text>'


def line(points: Sequence[tuple[int, float]]) -> str:
    """Each point with what it says; to the right in even steps, since they grow by tens."""
    high, height = max(took for _, took in points), 180
    step = (WIDTH - LEFT - RIGHT) / max(1, len(points) - 1)
    places = [(LEFT + step * number, 40 + height * (1 - took / high)) for number, (_, took) in enumerate(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = [f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>']
    for (x, y), (files, took) in zip(places, points, strict=True):
        drawn += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[0]}"/>', _text(x - 20, y - 12, f"{took:.1f} ms"),
            _text(x - 20, height + 70, f"{files:,}"),
        ]  # fmt: skip
    drawn.append(_text(8, height + 70, "files before"))
    return _picture(height + 90, drawn)


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {_FONT}>{escape(text)}</text>'


def _picture(height: int, drawn: Iterator[str] | Sequence[str]) -> str:
    inside = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{inside}\n</svg>\n'
    )
