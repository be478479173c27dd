"""report.json → one page: templates/page.html with its style and script. No network is needed to read it."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from sftmix_jax.analysis import rule, table
from sftmix_jax.analysis.report import plot
from sftmix_jax.machine import escaping

SCRIPT = "plotly.min.js"  # beside the page

_COLOURED = {rule.HOLDS: "yes", rule.OPPOSITE: "no", rule.NO_EFFECT: "no", rule.FAILS: "no"}


def plotly_source() -> str:
    """plotly.js, as its Python package carries it."""
    return resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")


def page(record: dict[str, Any], inline: bool = False, live: str = "") -> str:
    """The whole document; plotly's script (4.6 MB) stands beside it, or within it.

    `live`: the version of what is going on, for a page that a server keeps up to date.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        finalize=_escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plots": plot.plots,
        "json": json.dumps,
        "shown": table.shown,
        "key": _key,
        "verdict": _verdict,
        "curves": _curves,
    }
    return environment.get_template("page.html").render(
        report=record,
        style=Markup(_template("page.css")),
        script=Markup(_template("page.js")),
        plotly=Markup(plotly_source()) if inline else "",
        plotly_file=SCRIPT,
        live=live,
        live_script=Markup(_template("live.js")) if live else "",
    )


def _template(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _escaped(value: Any) -> Any:
    """Every text that a template writes, by the rule of HTML; only what templates made stands as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(escaping.html(str(value)))


def _key(cell: Any) -> Any:
    """What a cell is sorted by."""
    return cell[1] if isinstance(cell, tuple | list) else cell


def _verdict(words: str) -> str:
    """The class of a verdict's colour."""
    return _COLOURED.get(words, "maybe")


def _curves(record: dict[str, Any]) -> dict[str, Any]:
    """The curves with their names as plotly reads them."""
    escape = escaping.plotly

    def series(of: dict[str, Any]) -> dict[str, Any]:
        return {"step": of["step"], "values": {escape(name): values for name, values in of["values"].items()}}

    stages = {
        identity: {
            "name": escape(stage["name"]),
            "steps": stage["steps"],
            "training": series(stage["training"]),
            "validation": series(stage["validation"]),
        }
        for identity, stage in record["stages"].items()
    }
    return {"stages": stages, "runs": [[escape(name), chain] for name, chain in record["runs"].items()]}
