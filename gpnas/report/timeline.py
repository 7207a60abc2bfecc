"""Drawings of the gradient paths of a network, after Figures 7 and 8 of the gradient-path paper (arXiv:2211.04800).

    timeline_svg(graph, "ResNet")             # the layers that gradients reach at each timestamp, and their sources
    sources_svg(graph, 2, "ResNet")           # an arc from each source to each layer that it reaches at timestamp 2

Layers stand from left (image) to right (loss), timestamps from top to bottom. For networks of up to DETAILED layers every
source is drawn in the colour of its layer, with a stripe for each channel group; for larger ones, the number of sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from gpnas.graph.graph import Branch, Graph
from gpnas.paths.analysis import consumer_name, lengths, stages
from gpnas.paths.gradient_paths import GradientPaths, LayerPaths, gradient_paths

DETAILED = 24
"""Networks of up to this many layers are drawn with every source."""

LEFT, TOP, BOTTOM = 64, 64, 90
"""Margins, in pixels."""

CELL = 34
"""Least width, in pixels, of a layer's column."""

WIDE = 1080
"""Width of a drawing, in pixels, beyond which columns become narrower."""


@dataclass(frozen=True)
class Arrival:
    """The gradients that reach channels [start, stop) of a layer at one timestamp.

    layer: index of its operation. sources: (consumer, offset of the input channel); a consumer is the index of an operation, or
    len(graph.ops) + k for the loss of graph.outputs[k]. auxiliary: whether only auxiliary losses send them.
    """

    layer: int
    start: int
    stop: int
    timestamp: int
    sources: tuple[tuple[int, int], ...]
    auxiliary: bool


def arrivals(graph: Graph) -> list[Arrival]:
    """The arrivals of all live layers, by layer, channel group and timestamp."""
    main = {layer.op: layer for layer in gradient_paths(graph, Branch.MAIN).layers}
    arrivals_of_layers = []
    for layer in gradient_paths(graph).layers:
        by_main = main[layer.op].timestamps if layer.op in main else 0
        for group in layer.groups:
            times = sorted({t for source in group.sources for t in lengths(source.timestamps)})
            for t in times:
                sources = tuple((s.consumer, s.offset) for s in group.sources if s.timestamps >> t & 1)
                arrivals_of_layers.append(Arrival(layer.op, group.start, group.stop, t, sources, not by_main >> t & 1))
    return arrivals_of_layers


def timeline_svg(graph: Graph, title: str) -> str:
    """An SVG of layers by timestamps, in the detailed form for networks of up to DETAILED layers."""
    paths = gradient_paths(graph)
    if not paths.layers:
        return _drawing(WIDE, 80, title, "no layer of this network is live", [])
    return _detailed(graph, paths, title) if len(paths.layers) <= DETAILED else _overview(graph, paths, title)


def sources_svg(graph: Graph, timestamp: int, title: str) -> str:
    """An SVG of a row of layers, with an arc from each source to each layer that its gradient reaches at `timestamp`."""
    layers = [layer.op for layer in gradient_paths(graph).layers]
    ends = [*layers, *range(len(graph.ops), len(graph.ops) + len(graph.outputs))]
    step = max(CELL, min(110, WIDE // len(ends)))
    at = {op: LEFT + step * (k + 0.5) for k, op in enumerate(ends)}
    line = TOP + 130
    parts = [_text(at[op], line + 24, consumer_name(graph, op), turned=len(ends) > 8) for op in ends]
    reached = [a for a in arrivals(graph) if a.timestamp == timestamp]
    for arrival in reached:
        channels = graph.ops[arrival.layer].channels
        share = (arrival.start + arrival.stop) / 2 / channels - 0.5
        for consumer, offset in arrival.sources:
            x, y = at[consumer], at[arrival.layer] + share * CELL * 0.7
            name = f"{consumer_name(graph, consumer)} to {_group_name(graph, arrival)}"
            height = min(115.0, 26 + abs(x - y) * 0.32)
            parts.append(
                f'<path d="M{x:.1f} {line - 12} Q{(x + y) / 2:.1f} {line - 12 - height:.1f} {y:.1f} {line - 12}" '
                f'class="arc {_hue(ends.index(consumer))}" opacity="{_shade(graph, consumer, offset):.2f}">'
                f"<title>{escape(name)}</title></path>"
                f'<circle cx="{y:.1f}" cy="{line - 12}" r="3" class="{_hue(ends.index(consumer))}"/>'
            )
    for op in ends:
        parts.append(_box(at[op] - CELL * 0.4, line - 10, CELL * 0.8, 14, _hue(ends.index(op)), consumer_name(graph, op)))
    summary = f"Timestamp {timestamp}: gradients reach {len(reached)} channel groups. One colour and shade is one gradient."
    return _drawing(LEFT + step * len(ends) + 20, line + BOTTOM, title, summary, parts)


def _detailed(graph: Graph, paths: GradientPaths, title: str) -> str:
    """A cell for every layer and timestamp. It has a stripe for each channel group, divided by colour into sources."""
    columns = [layer.op for layer in paths.layers]
    ends = [*columns, *range(len(graph.ops), len(graph.ops) + len(graph.outputs))]
    step = max(CELL + 8, min(96, (WIDE - LEFT) // len(ends)))
    cell = step - 8
    last = max(layer.longest for layer in paths.layers)
    parts = [_text(12, TOP + 20, "time", anchor="start")]
    for t in range(1, last + 1):
        parts.append(_text(LEFT - 16, TOP + 30 * t + 18, str(t), anchor="end"))
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + step * len(ends)}" y1="{TOP + 30 * t}" y2="{TOP + 30 * t}" class="grid"/>')
    for k, op in enumerate(ends):
        parts.append(_box(LEFT + step * k, TOP, cell, 16, _hue(k), consumer_name(graph, op)))
        parts.append(_text(LEFT + step * k + cell / 2, TOP + 30 * (last + 1) + 14, consumer_name(graph, op), turned=True))
    for arrival in arrivals(graph):
        channels = graph.ops[arrival.layer].channels
        left = LEFT + step * columns.index(arrival.layer) + cell * arrival.start / channels
        wide = cell * (arrival.stop - arrival.start) / channels
        for j, (consumer, offset) in enumerate(arrival.sources):
            high = 22 / len(arrival.sources)
            source = f"{consumer_name(graph, consumer)}, input channel {offset}"
            name = f"{_group_name(graph, arrival)}, timestamp {arrival.timestamp}: from {source}"
            style = _hue(ends.index(consumer)) + (" auxiliary" if arrival.auxiliary else "")
            top = TOP + 30 * arrival.timestamp + 4 + j * high
            parts.append(_box(left, top, max(wide - 1, 1), high - 0.5, style, name, _shade(graph, consumer, offset)))
    summary = "Colour: the layer that sends a gradient (top row). Shade: its input channel. Stripes of a cell: channel groups."
    width = LEFT + step * len(ends) + 50  # room for the last name, which is turned
    return _drawing(width, TOP + 30 * (last + 1) + BOTTOM, title, summary, parts)


def _overview(graph: Graph, paths: GradientPaths, title: str) -> str:
    """A column for each layer, darker where more sources arrive. Equal neighbours in a column are one box."""
    step = max(3.0, (WIDE - LEFT) / len(paths.layers))
    last = max(layer.longest for layer in paths.layers)
    row = max(2.0, min(8.0, 480 / last))
    main = {layer.op: layer.timestamps for layer in gradient_paths(graph, Branch.MAIN).layers}
    parts = []
    for t in range(0, last + 1, 10 if last > 30 else 5):
        y = TOP + row * t
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + step * len(paths.layers):.1f}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(LEFT - 8, y + 4, str(t), anchor="end"))
    for k, layer in enumerate(paths.layers):
        for low, high, count, auxiliary in _columns(layer, main.get(layer.op, 0)):
            level = min(5, count)
            name = f"{graph.ops[layer.op].name}: timestamps {low} to {high}, {count} source{'s' if count > 1 else ''}"
            style = f"{'aux' if auxiliary else 'heat'}{level}"
            parts.append(_box(LEFT + step * k, TOP + row * low, step * 0.9, row * (high - low + 1), style, name))
    parts += _stage_labels(graph, paths, step, TOP + row * (last + 1))
    summary = f"Layers from the image (left) to the loss, timestamps 1 to {last} downwards; darker cells have more sources"
    summary += "; violet: only from auxiliary losses." if any(a.branch == Branch.AUXILIARY for a in graph.outputs) else "."
    return _drawing(LEFT + step * len(paths.layers) + 20, TOP + row * (last + 1) + BOTTOM + 40, title, summary, parts)


def _columns(layer: LayerPaths, by_main: int) -> Iterable[tuple[int, int, int, bool]]:
    """Runs of equal timestamps of one layer: (first, last, number of sources, whether only auxiliary losses send them)."""
    runs: list[tuple[int, int, int, bool]] = []
    everything = {source for group in layer.groups for source in group.sources}
    for t in lengths(layer.timestamps):
        count = len({(s.consumer, s.offset) for s in everything if s.timestamps >> t & 1})
        auxiliary = not by_main >> t & 1
        if runs and runs[-1][1] == t - 1 and runs[-1][2:] == (count, auxiliary):
            runs[-1] = (runs[-1][0], t, count, auxiliary)
        else:
            runs.append((t, t, count, auxiliary))
    return runs


def _stage_labels(graph: Graph, paths: GradientPaths, step: float, y: float) -> list[str]:
    """A bracket and a name under each run of layers of one stage."""
    stage_of = {layer.op: stage for stage, layers in stages(graph, paths).items() for layer in layers}
    parts, first = [], 0
    ops = [layer.op for layer in paths.layers]
    for k in range(1, len(ops) + 1):
        if k == len(ops) or stage_of[ops[k]] != stage_of[ops[first]]:
            x1, x2 = LEFT + step * first, LEFT + step * (k - 0.1)
            parts.append(f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y + 6:.1f}" y2="{y + 6:.1f}" class="bracket"/>')
            if x2 - x1 >= 9:
                parts.append(_text((x1 + x2) / 2, y + 20, stage_of[ops[first]], turned=True))
            first = k
    return parts


def _group_name(graph: Graph, arrival: Arrival) -> str:
    op = graph.ops[arrival.layer]
    whole = arrival.start == 0 and arrival.stop == op.channels
    return op.name if whole else f"{op.name}, channels {arrival.start}-{arrival.stop - 1}"


def _shade(graph: Graph, consumer: int, offset: int) -> float:
    """Opacity: the higher the offset in the source's input, the paler, so that concatenated layers differ."""
    n = len(graph.ops)
    read = graph.ops[consumer].inputs[0] if consumer < n else graph.outputs[consumer - n].op
    return 1 - 0.75 * offset / graph.ops[read].channels


def _hue(k: int) -> str:
    return f"hue{k % len(HUES)}"


def _box(x: float, y: float, width: float, height: float, style: str, name: str, opacity: float = 1.0) -> str:
    faint = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{style}"{faint}>'
        f"<title>{escape(name)}</title></rect>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "middle", turned: bool = False) -> str:
    if turned:
        return f'<text transform="translate({x:.1f} {y:.1f}) rotate(40)" text-anchor="start">{escape(text)}</text>'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


HUES = ("#4477aa", "#ee8866", "#228833", "#ccbb44", "#aa3377", "#66ccee", "#bb5555", "#77aadd", "#999933", "#44bb99")
_HEAT = ("#c9dcf2", "#9cc0e7", "#6b9fd6", "#3f7abf", "#1f5596")
_AUXILIARY = ("#e3d3f0", "#caaae3", "#ad7dd2", "#8d52bb", "#6c2f9c")

_STYLE = (
    ".timeline{--paper:#fff;--ink:#1c2733;--soft:#5b6875;--grid:#e3e8ee}"
    "@media(prefers-color-scheme:dark){.timeline{--paper:#161b22;--ink:#e6edf3;--soft:#9da7b1;--grid:#2b323b}}"
    ".timeline text{font:11px system-ui,sans-serif;fill:var(--soft)}.timeline .title{font-size:15px;fill:var(--ink)}"
    ".timeline .paper{fill:var(--paper)}.timeline .grid{stroke:var(--grid)}.timeline .bracket{stroke:var(--soft)}"
    ".timeline .arc{fill:none;stroke-width:1.6}.timeline .auxiliary{opacity:.45}"
    + "".join(f".timeline .hue{k}{{fill:{hue}}}.timeline .arc.hue{k}{{fill:none;stroke:{hue}}}" for k, hue in enumerate(HUES))
    + "".join(f".timeline .heat{k + 1}{{fill:{colour}}}" for k, colour in enumerate(_HEAT))
    + "".join(f".timeline .aux{k + 1}{{fill:{colour}}}" for k, colour in enumerate(_AUXILIARY))
)


def _drawing(width: float, height: float, title: str, summary: str, parts: Sequence[str]) -> str:
    width = max(width, 720)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="timeline" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'style="max-width:{width:.0f}px;width:100%"><title>{escape(title)}</title><desc>{escape(summary)}</desc>'
        f"<style>{_STYLE}</style>"
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>'
        f'<text x="14" y="24" class="title">{escape(title)}</text><text x="14" y="42">{escape(summary)}</text>'
        + "".join(parts)
        + "</svg>\n"
    )
