"""A panel of a figure as plotly.js' data and layout."""

from __future__ import annotations

from typing import Any

from sftmix_jax.analysis.drawing import COLOURS
from sftmix_jax.analysis.figures import Figure, Line, Panel
from sftmix_jax.machine import escaping

_MARKS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
_DASHES = ("solid", "dash", "dot", "dashdot", "solid", "dash")


def plots(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The plots of a figure of report.json, one per panel, so that they wrap on a narrow screen."""
    panels = [Panel(**{**panel, "lines": [Line(**line) for line in panel["lines"]]}) for panel in record["panels"]]
    figure = Figure(record["name"], record["title"], record["caption"], panels)
    return [_plot(panel) for panel in figure.with_text(escaping.plotly).panels]


def _plot(panel: Panel) -> dict[str, Any]:
    traces = [trace for line in panel.lines for trace in _traces(line)]
    x_axis: dict[str, Any] = {"title": {"text": panel.x_title}, "automargin": True}
    named = [x for line in panel.lines for x in line.x if isinstance(x, str)]
    if named:
        x_axis |= {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(dict.fromkeys([*panel.ticks, *named])),
        }
    if panel.log_x:
        x_axis["type"] = "log"
        if marked := {x: label for line in panel.lines for x, label in zip(line.x, line.labels, strict=False)}:
            x_axis |= {"tickvals": list(marked), "ticktext": list(marked.values())}
    rows = sum(len(line.name) // 40 + 1 for line in panel.lines)
    return {
        "data": traces,
        "layout": {
            "title": {"text": panel.title, "font": {"size": 14}},
            "xaxis": x_axis,
            "yaxis": {"title": {"text": panel.y_title}, "automargin": True},
            "margin": {"l": 50, "r": 10, "t": 36, "b": 40},
            "height": 300 + 18 * rows,
            # at the foot of the plot, however many lines of it there are: elsewhere it lies on the axis' title
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "font": {"size": 11}},
            "showlegend": True,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
        },
    }


def _traces(line: Line) -> list[dict[str, Any]]:
    style = line.style % len(COLOURS)
    colour = COLOURS[style]
    if line.band:
        area = {
            "x": [*line.x, *reversed(line.x)],
            "y": [*line.high, *reversed(line.low)],
            "fill": "toself",
            "fillcolor": f"{colour}26",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "showlegend": False,
            "type": "scatter",
            "mode": "lines",
        }
        curve = {
            "x": line.x,
            "y": line.y,
            "name": line.name,
            "mode": "lines",
            "type": "scatter",
            "line": {"color": colour, "width": 1, "dash": _DASHES[style]},
        }
        return [area, curve]
    trace: dict[str, Any] = {
        "x": line.x,
        "y": line.y,
        "name": line.name,
        "type": "scatter",
        "mode": "lines" if line.bare else "lines+markers" if line.joined else "markers",
        "line": {"color": colour, "dash": _DASHES[style]},
        "marker": {"symbol": _MARKS[style], "size": 8, "color": colour},
    }
    if line.labels and not line.low:
        trace |= {"mode": f"{trace['mode']}+text", "textposition": "top center"}
    if line.labels:
        trace |= {"text": line.labels, "hovertemplate": "%{text}: %{y:.2f}<extra>%{fullData.name}</extra>"}
    if line.low:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [h - y for h, y in zip(line.high, line.y, strict=True)],
            "arrayminus": [y - w for w, y in zip(line.low, line.y, strict=True)],
            "color": colour,
            "thickness": 1,
        }
    return [trace]
