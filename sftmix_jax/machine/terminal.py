"""Everything that a command prints: text is shown as it is, without the terminal or rich obeying anything in it.

Colours and lines that are drawn again come from here alone. `print` is used nowhere else in the package.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from sftmix_jax.machine.escaping import visible


def out(text: object = "", end: str = "\n") -> None:
    """A result, on stdout."""
    print(visible(str(text)), end=end, file=sys.stdout)


def err(text: object, stream: TextIO | None = None) -> None:
    """What happens meanwhile, on stderr or another stream."""
    print(visible(str(text)), file=stream or sys.stderr, flush=True)


def out_json(record: Any, indent: int | None = None) -> None:
    """A result as JSON: nothing is lost, and no control character stands in it."""
    print(json.dumps(record, indent=indent).replace("\x7f", "\\u007f"), file=sys.stdout)  # json escapes all others


class Line:
    """One line on stderr that is drawn anew, at most once per second, and never wraps.

    Where stderr is no terminal nothing is drawn: `is_live` says so.
    """

    EVERY = 1.0  # seconds

    def __init__(self) -> None:
        self.is_live = sys.stderr.isatty()
        self._drawn = -math.inf

    def show(self, text: str, now: bool = False) -> None:
        """Draws the text unless something was drawn in the last second; `now`: in any case."""
        if not self.is_live or (not now and time.monotonic() - self._drawn < self.EVERY):
            return
        self._drawn = time.monotonic()
        shown = Text(visible(text).replace("\n", " "))
        shown.truncate(shutil.get_terminal_size().columns - 1, overflow="ellipsis")
        self._write(shown.plain)

    def clear(self) -> None:
        """Takes the line away."""
        if self.is_live:
            self._write("")

    def end(self) -> None:
        """Leaves the line where it is; what is printed next stands below it."""
        if self.is_live:
            print(file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        sys.stderr.write("\r\033[K" + text)
        sys.stderr.flush()


def text(words: str, style: str = "") -> Text:
    """Words with one style, for a table, a panel, or as a part of a text."""
    return Text(visible(words), style=style)


class Console(RichConsole):
    """rich's, without its markup: `[/x]` in a name is text, and its styles come from `style=` and `text`."""

    def __init__(self, stderr: bool = False, **options: Any):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Every string, before it is measured."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever else: all that is not rich's own control code."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
