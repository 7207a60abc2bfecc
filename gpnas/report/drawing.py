"""Parts of the reports: axes, marks, tables and whole pages, as plain SVG and HTML with their own style.

Drawings follow the light or dark theme of the reader. Every mark has a title, which browsers show under the pointer and screen
readers read out. All text of users is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from gpnas.units import brief

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 44, 48
"""Size and margins of a drawing, in its own pixels."""

LONG_TEXT = 40
"""The text of a table's cell may break into lines when it has more characters."""

_LINE_COLOURS = ("#2f6db5", "#c2410c", "#168056", "#8c3ca0", "#b48200", "#c8285a", "#008ca0", "#59636e")

LINE_STYLES = len(_LINE_COLOURS)
"""Number of line styles, which are called line0, line1 ..."""


@dataclass(frozen=True)
class Axis:
    """Maps the values [low, high] to the pixels [start, stop]: `axis(value)` is the pixel of a value."""

    label: str
    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]
    log: bool

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)

    def text(self, tick: float) -> str:
        """The label of a tick, with as many digits as tell it from its neighbours."""
        if self.log or abs(tick) >= 1000:
            return short(tick)
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        return f"{tick:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def short(value: float) -> str:
    """`gpnas.units.brief` without zeros: 2G instead of 2.00G."""
    return brief(value).replace(".00", "")


def axis(
    values: Sequence[float], start: float, stop: float, label: str, *, log: bool = False, floor: float | None = None
) -> Axis:
    """An axis that holds all values with a margin around them. start, stop: pixels. floor: the axis shows nothing below it.

    log: logarithmic, but only where the largest value is at least 4 times the smallest.
    """
    low, high = min(values), max(values)
    if log and low > 0 and high >= 4 * low:
        low, high = low / 1.12, high * 1.12
        return Axis(label, low, high, start, stop, _log_ticks(low, high), True)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - margin, high + margin
    if floor is not None:
        low = max(low, floor)
    if min(values) >= 0:
        low = max(low, 0.0)
    return Axis(label, low, high, start, stop, _ticks(low, high), False)


def _ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high], at most `most`."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s * power for s in (1, 2, 5, 10, 20) if (high - low) / (s * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(k * step, 12) for k in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Round values within [low, high]; the fewer powers of ten, the more values in each."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    width = math.log10(high / low)
    steps = (1, 2, 3, 4, 6, 8) if width < 1.3 else (1, 2, 5) if width < 3 else (1,)
    return tuple(v for p in powers for s in steps if low <= (v := s * 10.0**p) <= high)


def frame(x: Axis, y: Axis) -> str:
    """The grid, the labels of its ticks and the labels of both axes."""
    parts = []
    for tick in y.ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y.text(tick)}</text>')
    for tick in x.ticks:
        at = x(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x.text(tick)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>')
    return "".join(parts)


def dot(x: float, y: float, name: str, style: str, radius: float, opacity: float) -> str:
    """A mark at a pixel position. name: its title. style: its class in the style sheet."""
    return (
        f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill-opacity="{opacity:.2f}">'
        f"<title>{escape(name)}</title></circle>"
    )


def rung_look(rung: int, top: int) -> tuple[float, float]:
    """Radius (pixels) and opacity of a mark: those of higher rungs are larger and more solid. top: the highest rung shown."""
    share = 1.0 if top == 0 else rung / top
    return 3.5 + 2.0 * share, 0.3 + 0.6 * share


def rung_legend(rungs: Sequence[int], top: int) -> list[tuple[str, str]]:
    """Entries of a legend for marks of these rungs, which look as in `rung_look`."""
    return [(f"mark dot {rung} {top}", f"rung {rung}") for rung in rungs]


def steps(points: Sequence[tuple[float, float]], end: float, style: str) -> str:
    """A step line through points (pixels) from left to right: level until the next point, then up; it goes on to `end`."""
    if not points:
        return ""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    path += [f"H{x:.1f}V{y:.1f}" for x, y in points[1:]]
    return f'<path class="{style}" d="{"".join(path)}H{end:.1f}"/>'


def line(points: Sequence[tuple[float, float]], style: str, name: str) -> str:
    """Points (pixels) joined by straight lines."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{style}" d="M{path}"><title>{escape(name)}</title></path>'


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """Entries ("line STYLE" or "mark STYLE [RUNG TOP]", text), in one row at the top right."""
    parts, right = [], float(WIDTH - RIGHT)
    for kind, text in reversed(entries):
        form, style, *rung = kind.split()
        right -= 6.4 * len(text)
        parts.append(f'<text x="{right:.1f}" y="24">{escape(text)}</text>')
        if form == "line":
            parts.append(f'<path class="{style}" d="M{right - 26:.1f} 20H{right - 8:.1f}"/>')
        else:
            radius, opacity = rung_look(*map(int, rung)) if rung else (4.5, 0.85)
            parts.append(dot(right - 12, 20, text, style, radius, opacity))
        right -= 40
    return "".join(parts)


def drawing(title: str, summary: str, parts: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    """A whole SVG. summary: what the drawing shows, for those who cannot see it. legend: see `_legend`."""
    return (
        f'<svg class="gpnas" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}: {escape(summary)}"><title>{escape(title)}</title><desc>{escape(summary)}</desc>'
        f'<style>{_DRAWING_STYLE}</style><rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text class="strong" x="16" y="24">{escape(title)}</text>{_legend(legend)}{"".join(parts)}</svg>\n'
    )


def empty(title: str, why: str) -> str:
    """A drawing without data that says why."""
    text = f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">{escape(why)}</text>'
    return drawing(title, why, [text], [])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_from: int) -> str:
    """An HTML table. The columns before number `text_from` hold numbers, which are aligned to the right."""

    def cell(tag: str, column: int, text: str) -> str:
        style = " class=number" if column < text_from else " class=wrap" if len(text) > LONG_TEXT else ""
        return f"<{tag}{style}>{escape(text)}</{tag}>"

    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(cell(tag, i, text) for i, text in enumerate(cells)) + "</tr>"

    body = "".join(line("td", row) for row in rows) or f'<tr><td colspan="{len(head)}">none</td></tr>'
    return f"<div class=wide><table><thead>{line('th', head)}</thead><tbody>{body}</tbody></table></div>"


def page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML page, which may load nothing from elsewhere. sections: HTML."""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


_DRAWING_STYLE = """
.gpnas{--paper:#fff;--ink:#24292f;--soft:#59636e;--grid:#e4e7eb;--dot:#2f6db5;--front:#c2410c;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){.gpnas{--paper:#161b22;--ink:#e6edf3;--soft:#9da7b1;--grid:#2b323b;--dot:#79b0f2;--front:#ff9d5c}}
.gpnas .paper{fill:var(--paper)}.gpnas text{fill:var(--soft)}.gpnas .strong{fill:var(--ink);font-weight:600}
.gpnas .label{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.gpnas .grid{stroke:var(--grid)}.gpnas .axis{stroke:var(--soft)}.gpnas .dot{fill:var(--dot)}
.gpnas .on-front{fill:var(--front)}.gpnas .front{fill:none;stroke:var(--front);stroke-width:2}
.gpnas [class^=line]{fill:none;stroke-width:1.8}
.gpnas .best{fill:none;stroke:var(--ink);stroke-width:2}.gpnas .limit{stroke:var(--ink);stroke-dasharray:5 4}
.gpnas .fresh{fill:var(--paper);stroke:var(--dot);stroke-width:1.4}
.gpnas .error{fill:none;stroke:var(--ink);stroke-opacity:.65;stroke-width:1.4}
""" + "".join(f".gpnas .line{k}{{stroke:{colour}}}" for k, colour in enumerate(_LINE_COLOURS))

_PAGE_STYLE = """
:root{color-scheme:light dark;--back:#f6f8fa;--card:#fff;--ink:#24292f;--soft:#59636e;--line:#d8dee4}
@media(prefers-color-scheme:dark){:root{--back:#0d1117;--card:#161b22;--ink:#e6edf3;--soft:#9da7b1;--line:#30363d}}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:24px}small{color:var(--soft);font-size:15px;font-weight:400}
h2{font-size:18px;margin:36px 0 8px}
p{color:var(--soft);margin:0 0 12px}svg{width:100%;height:auto;display:block}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px 12px;min-width:0}
dt{color:var(--soft)}dd{margin:0;font-size:20px;font-weight:600;overflow-wrap:anywhere}
dd.note{font-size:12px;font-weight:400;color:var(--soft)}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{padding:5px 10px;text-align:left;vertical-align:top;white-space:nowrap}
th{color:var(--soft);font-weight:600;white-space:nowrap}tbody tr{border-top:1px solid var(--line)}
td.wrap{white-space:normal;overflow-wrap:anywhere;min-width:200px}
figure{display:inline-block;margin:0 10px 10px 0;width:300px;vertical-align:top}img{width:100%;border-radius:6px}
figcaption{font-size:12px;color:var(--soft);overflow-wrap:anywhere}
.number{text-align:right;font-variant-numeric:tabular-nums}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:12px;overflow-x:auto;font-size:13px}
summary{cursor:pointer;color:var(--soft);margin-bottom:8px}
"""
