"""A chat template: jinja text, rendered as transformers renders it, on one fixed date and within bounds.

The text decides all of a conversation's rendering: `complete` writes into it what differs between machines or days,
so that transformers renders the same from the text alone.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.errors import UserError

# What `strftime_now` returns, in training, sampling and after export: the date that Llama 3's template has by default.
DATE = datetime.datetime(2024, 7, 26)
_DIRECTIVES = [f"%-{letter}" for letter in "dmHIMSjy"] + [f"%{letter}" for letter in "aAbBcdeHIjmMpSTuUwWxXyYzZDFR%"]
_MOST_CHARACTERS = 200_000  # of a rendering, beyond what its messages explain
_MOST_COPIES = 16  # of its messages
_MOST_STEPS = 1_000_000  # loop iterations and calls of a rendering
_REASONING = ("reasoning_content", "thinking", "reasoning")  # the first is what templates read; all mean the same
_NUMBER = re.compile(r"\d{6,}|\*")  # a width in a format


class _TooMuch(Exception):
    pass


def complete(source: str, begin: str | None = None) -> str:
    """The template with its date written into it, and the value of `begin`, which the built-in ones use.

    A text that is complete stays as it is.
    """
    source = source.replace("\r\n", "\n")
    head = _dated() if "strftime_now" in source else ""
    if begin is not None:
        head += "{% set begin = " + json.dumps(begin, ensure_ascii=False) + " %}\n"
    return source if source.startswith(head) else head + source


def _dated() -> str:
    """A jinja macro for `strftime_now`. The newline behind it is not rendered (trim_blocks)."""
    steps = "".join(f" | replace({d!r}, {DATE.strftime(d)!r})" for d in _DIRECTIVES)
    return "{% macro strftime_now(format) %}{{ format" + steps + " }}{% endmacro %}\n"


class Template:
    """A compiled chat template.

    Raises UserError, which names `where`, for text that is no jinja.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str):
        from transformers.utils.chat_template_utils import _compile_jinja_template

        try:
            # Of an empty template: jinja folds constants as it compiles, and theirs does so without limits.
            theirs = _compile_jinja_template("").environment
            self._environment = _Bounded(
                trim_blocks=theirs.trim_blocks, lstrip_blocks=theirs.lstrip_blocks,
                extensions=[type(extension) for extension in theirs.extensions.values()],
            )  # fmt: skip
            self._environment.adopt(theirs)
            self._template = self._environment.from_string(_Counted().visit(self._environment.parse(source)))
        except TemplateSyntaxError as error:
            line = error.lineno - source.startswith("{% macro strftime_now(format) %}")
            raise UserError(f"{where}, line {line}: not a jinja template: {error.message}") from None
        self._special = dict(special_tokens)
        self.takes_parts = False  # content as [{"type": "text", "text": …}]

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), prompt: bool = False) -> str:
        """The conversation's text; with `prompt`, up to where the next answer starts.

        Raises BadRow with the template's own words, or if the text grows out of proportion.
        """
        size = sum(len(m.content) for m in messages)
        if tools or any(m.fields for m in messages):
            size += len(json.dumps([list(tools), [dict(m.fields) for m in messages]], default=str))
        limit = self._environment.start(_MOST_CHARACTERS + _MOST_COPIES * size)
        text, length = [], 0
        try:
            for part in self._template.generate(
                messages=[self._row(m) for m in messages], tools=[dict(t) for t in tools] or None, documents=None,
                add_generation_prompt=prompt, **self._special,
            ):  # fmt: skip
                length += len(part)
                if length > limit:
                    raise _TooMuch
                text.append(part)
        except (_TooMuch, MemoryError, RecursionError):
            raise BadRow("the chat template does not end, or builds far more text than its messages hold") from None
        except Exception as error:  # whatever an expression in the template raises
            raise BadRow(f"the chat template cannot hold it: {str(error) or type(error).__name__}") from None
        return "".join(text)

    def _row(self, message: Message) -> dict[str, Any]:
        """A message as transformers hands it to a template: reasoning under both of its names, nothing that is None."""
        content = [{"type": "text", "text": message.content}] if self.takes_parts else message.content
        row = {"role": message.role, "content": content}
        if message.fields:
            row |= {name: value for name, value in message.fields.items() if value is not None}
            if reasoning := next((row[name] for name in _REASONING if name in row), None):
                row = {"thinking": reasoning, **row, "reasoning_content": reasoning}
        return row


class _Bounded(ImmutableSandboxedEnvironment):
    """transformers' environment, in which text and loops have limits."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def adopt(self, other: Any) -> None:
        """Filters, tests and globals of another environment."""
        self.filters.update(other.filters)
        self.tests.update(other.tests)
        self.globals.update(other.globals)
        self.globals.pop("lipsum", None)
        for name in ("center", "indent", "wordwrap"):
            self.filters[name] = self._bounded_filter(self.filters[name])
        self.filters |= {"counted iterations": _counted, "bounded concatenation": _concatenated}
        self.start(_MOST_CHARACTERS)

    def start(self, characters: int) -> int:
        """Begin a rendering of at most so many characters."""
        self.characters, self.steps = characters, _MOST_STEPS
        return characters

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise _TooMuch

    def fits(self, size: int) -> None:
        if size > self.characters:
            raise _TooMuch

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match operator:
            case "*":
                for sequence, count in ((left, right), (right, left)):
                    if isinstance(sequence, str | list | tuple) and isinstance(count, int):
                        self.fits(len(sequence) * count)
            case "+":
                if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                    self.fits(len(left) + len(right))
            case "**":
                self.fits(abs(right) if isinstance(right, int) else 0)
            case "%":
                if isinstance(left, str) and _NUMBER.search(left):
                    raise _TooMuch
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self.step()
        text = getattr(called, "__self__", None)
        if isinstance(text, str):
            if any(isinstance(value, int) and value > self.characters for value in args):
                raise _TooMuch
            if called.__name__ == "replace" and len(args) > 1:
                self.fits(text.count(str(args[0])) * len(str(args[1])))
            if called.__name__ in ("format", "format_map") and _NUMBER.search(text):
                raise _TooMuch
        return super().call(context, called, *args, **kwargs)

    def _bounded_filter(self, filter: Any) -> Any:
        """A filter without an environment argument or with one, which takes no large numbers."""

        def bounded(*args: Any, **kwargs: Any) -> Any:
            if any(isinstance(value, int) and value > 10_000 for value in (*args, *kwargs.values())):
                raise _TooMuch
            return filter(*args, **kwargs)

        bounded.__dict__.update(filter.__dict__)  # jinja's marks of which argument goes first
        return bounded


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> list[Any]:
    environment: Any = context.environment
    found = list(itertools.islice(items, environment.steps + 1))
    environment.step(len(found))
    return found


@pass_context
def _concatenated(context: Context, items: list[Any]) -> str:
    environment: Any = context.environment
    text = "".join(map(str, items))
    environment.fits(len(text))
    return text


class _Counted(NodeTransformer):
    """Loops and `~`, which the sandbox does not intercept, through filters that count."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "counted iterations", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "bounded concatenation", [], [], None, None, lineno=node.lineno)
