"""The plot of time and memory against the number of namespaces, as SVG written by hand: equal figures, equal bytes."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from dev.bench.figures import Point

_WIDTH, _HEIGHT, _GAP = 420, 280, 40
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 36, 44
_FONT = 'font-family="sans-serif" font-size="11"'
_COLOURS = ("#0b6e99", "#9bbfcc", "#c2571a", "#e3b598")

Series = tuple[str, Callable[[Point], float]]
_TIME: tuple[Series, ...] = (
    ("first, regcred", lambda point: point.first),
    ("first, bare client", lambda point: point.first_bare),
    ("renewal, regcred", lambda point: point.renewal),
    ("renewal, bare client", lambda point: point.renewal_bare),
)
_MEMORY: tuple[Series, ...] = (("resident memory of regcred", lambda point: point.memory),)


def draw(points: Sequence[Point]) -> str:
    """Return the picture: seconds on the left, MiB on the right."""
    ordered = sorted(points, key=lambda point: point.namespaces)
    width = 2 * _WIDTH + _GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" {_FONT}>',
            f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>',
            *_panel(ordered, _TIME, "Seconds to write every namespace", 0),
            *_panel(ordered, _MEMORY, "Resident memory, MiB", _WIDTH + _GAP),
            "</svg>",
            "",
        ]
    )


def ticks(highest: float, count: int = 5) -> list[float]:
    """Return round numbers from 0 to at least `highest`."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / count
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * index for index in range(math.ceil(highest / step * 0.999) + 1)]


def _panel(points: Sequence[Point], series: Sequence[Series], title: str, left: int) -> list[str]:
    across = ticks(max((point.namespaces for point in points), default=0))
    up = ticks(max((read(point) for point in points for _, read in series), default=0.0))

    def at(namespaces: float, value: float) -> tuple[float, float]:
        return (
            left + _LEFT + namespaces / across[-1] * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - value / up[-1] * (_HEIGHT - _TOP - _BOTTOM),
        )

    lines = [_text(left + _LEFT, 20, title, weight="bold")]
    for value in up:
        x, y = at(0, value)
        lines.append(_line((x, y), at(across[-1], value), "#dddddd"))
        lines.append(_text(x - 6, y + 4, f"{value:g}", anchor="end"))
    for value in across:
        x, y = at(value, 0)
        lines.append(_text(x, y + 16, f"{value:g}", anchor="middle"))
    lines.append(_text(left + (_WIDTH + _LEFT) / 2, _HEIGHT - 8, "namespaces", anchor="middle"))
    for number, (name, read) in enumerate(series):
        colour = _COLOURS[number]
        spots = [at(point.namespaces, read(point)) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        key = 48.0 + 15 * number
        lines.append(_line((left + _LEFT + 10, key), (left + _LEFT + 28, key), colour, 2))
        lines.append(_text(left + _LEFT + 33, 52 + 15 * number, name))
    return lines


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, width: int = 1) -> str:
    (x1, y1), (x2, y2) = start, end
    where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {where} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(text)}</text>'
    )
