"""One self-contained page: figures that answer to the mouse, tables that sort; no network needed to read it.

Every function takes text and gives HTML; `parts` and `inner` alone are HTML already.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from sftmix_jax.analysis import rule
from sftmix_jax.analysis.drawing import COLOURS
from sftmix_jax.analysis.figures import Figure, Line, Panel
from sftmix_jax.machine import escaping

_MARKS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
_FILTERED = 8  # rows from which on a table can be filtered
_DASHES = ("solid", "dash", "dot", "dashdot", "solid", "dash")


@dataclasses.dataclass
class Table:
    """Rows of text or numbers; a cell may be (shown, sorted by)."""

    name: str  # of its files
    title: str
    columns: list[str]
    rows: list[list[Any]]
    caption: str = ""

    @property
    def stem(self) -> str:
        """Its files' name without the suffix."""
        return escaping.file_name(self.name)


@dataclasses.dataclass
class Section:
    title: str
    parts: list[str]  # HTML
    lead: str = ""


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole document."""
    plotly = resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    links = "".join(f'<a href="#s{i}">{escaping.html(section.title)}</a>' for i, section in enumerate(sections))
    body = "".join(
        f'<section id="s{i}"><h2>{escaping.html(section.title)}</h2>'
        + (text(section.lead) if section.lead else "") + "".join(section.parts) + "</section>"
        for i, section in enumerate(sections)
    )  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaping.html(title)}</title><style>{_STYLE}</style><script>{plotly}</script></head><body>"
        f"<header><h1>{escaping.html(title)}</h1>{text(lead)}<nav>{links}</nav></header><main>{body}</main>"
        f"<script>{_SCRIPT}</script></body></html>"
    )


def plots(drawn: Figure) -> str:
    """A figure's panels, each a plot of its own, so that they fold on a narrow screen."""
    each = "".join(
        f'<div class="plot" data-plot="{escaping.html(json.dumps(_plot(panel)))}"></div>'
        for panel in drawn.with_text(escaping.plotly).panels
    )
    return f'<div class="plots">{each}</div>'


def figure(drawn: Figure) -> str:
    """A figure with its title, its caption and its files."""
    files = " ".join(f'<a href="figures/{drawn.stem}.{kind}">{kind.upper()}</a>' for kind in ("svg", "pdf"))
    return (
        f'<figure id="figure-{drawn.stem}"><h3>{escaping.html(drawn.title)}</h3>{plots(drawn)}'
        f"<figcaption>{escaping.html(drawn.caption)} {files}</figcaption></figure>"
    )


def _plot(panel: Panel) -> dict[str, Any]:
    """plotly.js' data and layout of one panel."""
    traces = [trace for line in panel.lines for trace in _traces(line)]
    x_axis: dict[str, Any] = {"title": {"text": panel.x_title}, "automargin": True}
    if any(isinstance(x, str) for line in panel.lines for x in line.x):
        x_axis["type"] = "category"
    if panel.log_x:
        x_axis["type"] = "log"
        marked = next((line for line in panel.lines if line.labels), None)
        if marked:
            x_axis |= {"tickvals": marked.x, "ticktext": marked.labels}
    return {"data": traces, "layout": {
        "title": {"text": panel.title, "font": {"size": 14}}, "xaxis": x_axis,
        "yaxis": {"title": {"text": panel.y_title}, "automargin": True},
        "margin": {"l": 50, "r": 10, "t": 36, "b": 40}, "height": 330,
        # at the foot of the plot, however many lines of it there are: elsewhere it lies on the axis' title
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
    }}  # fmt: skip


def _traces(line: Line) -> list[dict[str, Any]]:
    style = line.style % len(COLOURS)
    colour = COLOURS[style]
    if line.band:
        area = {
            "x": [*line.x, *reversed(line.x)], "y": [*line.high, *reversed(line.low)], "fill": "toself",
            "fillcolor": f"{colour}26", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
            "type": "scatter",
        }  # fmt: skip
        curve = {
            "x": line.x, "y": line.y, "name": line.name, "mode": "lines", "type": "scatter",
            "line": {"color": colour, "width": 1, "dash": _DASHES[style]},
        }  # fmt: skip
        return [area, curve]
    trace: dict[str, Any] = {
        "x": line.x, "y": line.y, "name": line.name, "type": "scatter",
        "mode": "lines" if line.bare else "lines+markers" if line.joined else "markers",
        "line": {"color": colour, "dash": _DASHES[style]},
        "marker": {"symbol": _MARKS[style], "size": 8, "color": colour},
    }  # fmt: skip
    if line.labels and not line.low:
        trace |= {"mode": f"{trace['mode']}+text", "textposition": "top center"}
    if line.labels:
        trace |= {"text": line.labels, "hovertemplate": "%{text}: %{y:.2f}<extra>%{fullData.name}</extra>"}
    if line.low:
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": [h - y for h, y in zip(line.high, line.y, strict=True)],
            "arrayminus": [y - w for w, y in zip(line.low, line.y, strict=True)], "color": colour, "thickness": 1,
        }  # fmt: skip
    return [trace]


def table(made: Table) -> str:
    """A table whose columns sort by a click on their heads."""
    heads = "".join(f'<th><button type="button">{escaping.html(column)}</button></th>' for column in made.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in made.rows)
    files = " ".join(f'<a href="tables/{made.stem}.{kind}">{kind.upper()}</a>' for kind in ("csv", "tex"))
    filtered = '<input type="search" placeholder="only rows with …" aria-label="only rows with">' if (
        len(made.rows) >= _FILTERED
    ) else ""  # fmt: skip
    return (
        f'<div class="table" id="table-{made.stem}">{heading(made.title)}{filtered}'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p class=caption>{escaping.html(made.caption)} {files}</p></div>"
    )


_COLOURED = {rule.HOLDS: "yes", rule.OPPOSITE: "no", rule.NO_EFFECT: "no", rule.FAILS: "no", rule.UNCLEAR: "maybe"}


def _cell(cell: Any) -> str:
    shown, key = _shown(cell), cell[1] if isinstance(cell, tuple) else cell
    verdict = _COLOURED.get(str(shown), "")
    kind = "number" if isinstance(key, int | float) else verdict
    return f'<td class="{kind}" data-key="{escaping.html(str(key))}">{escaping.html(str(shown))}</td>'


def _shown(cell: Any) -> Any:
    return cell[0] if isinstance(cell, tuple) else cell


def heading(words: str) -> str:
    return f"<h3>{escaping.html(words)}</h3>"


def text(words: str) -> str:
    return f"<p>{escaping.html(words)}</p>"


def details(summary: str, inner: str) -> str:
    return f"<details><summary>{escaping.html(summary)}</summary>{inner}</details>"


def code(words: str) -> str:
    return f"<pre>{escaping.html(words)}</pre>"


def columns(parts: Sequence[tuple[str, str]]) -> str:
    """Texts side by side, each under its title."""
    inner = "".join(
        f"<div><h4>{escaping.html(title)}</h4><pre>{escaping.html(words)}</pre></div>" for title, words in parts
    )
    return f'<div class="columns">{inner}</div>'


def tree(nodes: Sequence[tuple[int, str]]) -> str:
    """An outline: (depth, words) a line."""
    lines = "".join(f'<li style="margin-left:{1.6 * depth}em">{escaping.html(words)}</li>' for depth, words in nodes)
    return f'<ul class="tree">{lines}</ul>'


def to_csv(made: Table) -> str:
    """The table's shown texts as CSV."""
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream)
    for row in (made.columns, *made.rows):
        writer.writerow([escaping.csv(_shown(cell)) for cell in row])
    return stream.getvalue()


def to_latex(made: Table) -> str:
    """The table for a paper (booktabs)."""
    head, *lines = (
        " & ".join(escaping.latex(str(_shown(cell))) for cell in row) + r" \\" for row in (made.columns, *made.rows)
    )
    return "\n".join([
        r"\begin{tabular}{" + "l" * len(made.columns) + "}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule",
        r"\end{tabular}", "",
    ])  # fmt: skip


_STYLE = """
:root{--ink:#1c2127;--soft:#5b6672;--line:#d5dae0;--paper:#fff;--tint:#f4f6f8;color-scheme:light}
*{box-sizing:border-box}
body{margin:0;font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);background:var(--paper)}
header,main{max-width:1200px;margin:0 auto;padding:1.2rem 1.4rem}
h1{font-size:1.7rem;margin:.4rem 0}
h2{font-size:1.3rem;margin:2.4rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}
h3{font-size:1.05rem;margin:1.4rem 0 .3rem}
h4{font-size:.9rem;margin:.2rem 0;color:var(--soft);font-weight:600}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.95rem}
a{color:#0b5cad}
.table{overflow-x:auto}.table input{font:inherit;font-size:.88rem;margin:.3rem 0;padding:.1rem .4rem}
table{border-collapse:collapse;font-size:.92rem;width:100%}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th button{all:unset;cursor:pointer;font-weight:600;color:var(--ink)}
th button:focus-visible{outline:2px solid #0b5cad}
th[aria-sort=ascending] button::after{content:" \\25B2"}
th[aria-sort=descending] button::after{content:" \\25BC"}
td.number{font-variant-numeric:tabular-nums;white-space:nowrap}
td.yes{font-weight:600}td.yes::before{content:"\\2713 "}
td.no::before{content:"\\2717 "}td.maybe::before{content:"? "}
figure{margin:1rem 0}.plots{display:flex;flex-wrap:wrap;gap:.6rem}.plot{flex:1 1 320px;min-width:0}
figcaption,.caption{font-size:.88rem;color:var(--soft)}
pre{background:var(--tint);padding:.6rem;overflow-x:auto;font-size:.83rem;white-space:pre-wrap;margin:.2rem 0}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:.6rem}
details{margin:.4rem 0;border:1px solid var(--line);border-radius:4px;padding:.3rem .7rem}
summary{cursor:pointer}
ul.tree{list-style:none;padding:0;font-size:.92rem}
.tree li{border-left:2px solid var(--line);padding-left:.6em}
@media (max-width:640px){table{width:max-content;min-width:100%}td{max-width:15em}}
@media print{nav,.table input,th button::after{display:none}details{break-inside:avoid}body{font-size:11pt}}
"""

_SCRIPT = """
const draw = place => {
  const made = JSON.parse(place.dataset.plot);
  Plotly.newPlot(place, made.data, made.layout, {responsive: true, displaylogo: false, displayModeBar: false});
};
for (const place of document.querySelectorAll('.plot')) if (!place.closest('details')) draw(place);
for (const fold of document.querySelectorAll('details')) {
  fold.addEventListener('toggle', () => fold.querySelectorAll(':scope > .plots > .plot').forEach(draw), {once: true});
}
for (const input of document.querySelectorAll('.table input')) {
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase().split(' ');
    for (const row of input.parentElement.querySelectorAll('tbody tr'))
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}
for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => {
    const head = button.parentElement, body = head.closest('table').tBodies[0];
    const place = [...head.parentElement.children].indexOf(head);
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of head.parentElement.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = row => row.children[place].dataset.key;
    const rows = [...body.rows].sort((a, b) => {
      const x = parseFloat(key(a)), y = parseFloat(key(b));
      const order = isNaN(x) || isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  });
}
"""
