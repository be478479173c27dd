"""A chat template: jinja text, rendered as transformers renders it, on one fixed date and within bounds.

The text decides all of a conversation's rendering: `complete` writes into it what differs between machines or days,
so that transformers renders the same from the text alone.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.machine.errors import UserError

# What `strftime_now` returns, in training, sampling and after export: the date that Llama 3's template has by default.
DATE = datetime.datetime(2024, 7, 26)
_DIRECTIVES = [f"%-{c}" for c in "dmHIMSjy"] + [f"%{c}" for c in "aAbBcCdDeFfgGhHIjmMpRSTuUVwWxXyYzZ"]
_MOST_CHARACTERS = 200_000  # of a rendering, beyond what its messages explain
_MOST_COPIES = 16  # of its messages
_MOST_STEPS = 2_000_000  # loop iterations, calls, and entries of values of a rendering
_CALL_STEPS = 10  # a call takes as long as so many iterations
_READ = 10  # entries that are read within Python in the time of an iteration
_REASONING = ("reasoning_content", "thinking", "reasoning")  # the first is what templates read; all mean the same
_NUMBER = re.compile(r"\d{3,}")  # a width in a format


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
    """A jinja macro for `strftime_now`, which refuses other directives. Nothing around it is rendered (trim_blocks)."""
    steps = "".join(f" | replace({d!r}, {DATE.strftime(d)!r})" for d in _DIRECTIVES)
    refuse = "raise_exception('strftime_now does not know a directive of ' ~ format)"
    return (
        "{% macro strftime_now(format) %}{% set text = format | replace('%%', '\\x00')" + steps + " %}"
        "{{ " + refuse + " if '%' in text else text | replace('\\x00', '%') }}{% endmacro %}\n"
    )


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
                trim_blocks=theirs.trim_blocks,
                lstrip_blocks=theirs.lstrip_blocks,
                extensions=[type(extension) for extension in theirs.extensions.values()],
                finalize=_shown,
            )
            self._environment.adopt(theirs)
            self._template = self._environment.from_string(_Counted().visit(self._environment.parse(source)))
        except TemplateSyntaxError as error:
            line = error.lineno - source.startswith("{% macro strftime_now(format) %}")
            raise UserError(f"{where}, line {line}: not a jinja template: {error.message}") from None
        except SyntaxError as error:  # of the Python that jinja makes of it: `break` outside a loop
            raise UserError(f"{where}: not a jinja template: {error.msg}") from None
        self._special = dict(special_tokens)
        self.takes_parts = False  # content as [{"type": "text", "text": …}]

    @property
    def end_of_sequence(self) -> str:
        """What the template writes as `eos_token`."""
        return self._special.get("eos_token") or "\0"

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
                messages=[self._row(m) for m in messages],
                tools=[dict(t) for t in tools] or None,
                documents=None,
                add_generation_prompt=prompt,
                **self._special,
            ):
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
    """transformers' environment, in which every value has a limit, and all work together.

    A value is measured when a filter, a call, an operator, a display or a block has made it. The few operations that
    can make far more than they are given are estimated before they run.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def adopt(self, other: Any) -> None:
        """Filters, tests and globals of another environment."""
        self.filters.update({name: self._bounded(name, filter) for name, filter in other.filters.items()})
        del self.filters["random"]  # the same conversation has the same text
        self.tests.update(other.tests)
        self.tests["in"] = lambda value, items: value in self._after_reading(items)
        self.globals.update(other.globals)
        self.globals.pop("lipsum", None)
        self.filters |= {
            "counted iterations": _counted,
            "measured": _measured,
            "measured text": _concatenated,
            "read": _read,
        }
        self.start(_MOST_CHARACTERS)

    def start(self, characters: int) -> int:
        """Begin a rendering of at most so many characters."""
        self.characters, self.steps = characters, _MOST_STEPS
        return characters

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise _TooMuch

    def read(self, *values: Any, entries: int = _READ) -> None:
        """Counts what goes through values without a loop of the template: a method, `in`; a filter calls for each."""
        for value in values:
            if isinstance(value, str | bytes):
                self.step(len(value) // 1000)
            elif isinstance(value, list | tuple | dict | set | range):
                self.step(len(value) // entries)

    def _after_reading(self, value: Any) -> Any:
        self.read(value)
        return value

    def fits(self, size: int) -> None:
        if size > self.characters:
            raise _TooMuch

    def measured(self, value: Any) -> Any:
        """The value, if it is not too large."""
        if isinstance(value, str):
            size = len(value)
            if size > self.characters:
                raise _TooMuch
            self.steps -= 1 + size // 1000
            if self.steps < 0:
                raise _TooMuch
        elif value is not None and value is not True and value is not False:
            self.step(_size(value, self.characters))
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        most = self.characters
        match operator:
            case "*":
                for value, count in ((left, right), (right, left)):
                    if isinstance(value, str | bytes | list | tuple) and isinstance(count, int):
                        self.fits(_size(value, most) * count)
            case "**":
                self.fits(_size(left, most) * abs(right) if isinstance(right, int) else 0)
            case "%" if isinstance(left, str):
                self.fits(_estimate("format", left, (right,), most))
        return self.measured(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self.step(_CALL_STEPS)
        self.read(getattr(called, "__self__", None), *args)
        text = getattr(called, "__self__", None)
        if isinstance(text, str | bytes | int) and called.__name__ in _GROWING:
            if called.__name__ == "join" and args:
                args = (list(itertools.islice(args[0], self.steps + 1)), *args[1:])
                self.fits(_estimate("join", args[0], (str(text),), self.characters))
            else:
                self.fits(_estimate(called.__name__, text, (*args, *kwargs.values()), self.characters))
        return self.measured(super().call(context, called, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format and str.format_map, tried field by field before jinja's own runs."""
        theirs = super().wrap_str_format(value)
        if theirs is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            given = ((), args[0]) if value.__name__ == "format_map" and len(args) == 1 else (args, kwargs)
            _Formatter(self).vformat(value.__self__, *given)
            return theirs(*args, **kwargs)

        return bounded

    def _bounded(self, name: str, filter: Any) -> Any:
        """A filter whose argument and result are measured."""
        takes_context = hasattr(filter, "jinja_pass_arg")

        def measured(*args: Any, **kwargs: Any) -> Any:
            self.read(*args, entries=1)
            return self.measured(filter(*args, **kwargs))

        def estimated(*args: Any, **kwargs: Any) -> Any:
            head, (value, *rest) = args[:takes_context], args[takes_context:]
            if name == "join":
                value = list(itertools.islice(value, self.steps + 1))
            self.read(value, *rest, entries=1)
            self.fits(_estimate(name, value, (*rest, *kwargs.values()), self.characters))
            return self.measured(filter(*head, value, *rest, **kwargs))

        bounded = estimated if name in _GROWING else measured
        vars(bounded).update(getattr(filter, "__dict__", {}))  # jinja's marks of which argument goes first
        return bounded

    def concat(self, parts: Iterable[str]) -> str:  # type: ignore[override]
        """What a macro or a block has written, as one text."""
        parts = list(parts)
        self.fits(sum(map(len, parts)))
        return "".join(parts)


class _Formatter(SandboxedFormatter):
    """Knows the width of a field when no `{}` is left in it, so also a width that is an argument."""

    def __init__(self, environment: _Bounded):
        super().__init__(environment)
        self._bounds, self._written = environment, 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        self._bounds.fits(self._written + sum(map(int, _NUMBER.findall(format_spec))))
        text = super().format_field(value, format_spec)
        self._written += len(text)
        self._bounds.fits(self._written)
        return text


def _size(value: Any, most: int) -> int:
    """The characters, digits and entries of a value, at any depth. Raises _TooMuch beyond `most`."""
    total, waiting = 0, [value]
    while waiting:
        value = waiting.pop()
        total += 1
        if isinstance(value, str | bytes):
            total += len(value)
        elif isinstance(value, int):
            total += value.bit_length() // 3
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        if total + len(waiting) > most:
            raise _TooMuch
    return total


# Filters and methods of texts that can make far more than they are given
_GROWING = frozenset(
    {
        "join",
        "replace",
        "center",
        "ljust",
        "rjust",
        "zfill",
        "round",
        "truncate",
        "batch",
        "slice",
        "indent",
        "expandtabs",
        "wordwrap",
        "translate",
        "tojson",
        "format",
        "to_bytes",
    }
)


def _estimate(name: str, value: Any, given: Sequence[Any], most: int) -> int:
    """At most so many characters does one of _GROWING make of `value`; 0 where it makes no more than it is given."""
    numbers = sum(abs(each) for each in given if isinstance(each, int))
    texts = sum(len(each) for each in given if isinstance(each, str))
    match name:
        case "join":
            return _size(value, most) + len(value) * texts
        case "replace" if len(given) > 1:
            return len(str(value)) + str(value).count(str(given[0])) * len(str(given[1]))
        case "center" | "ljust" | "rjust" | "zfill" | "round" | "truncate" | "batch" | "slice" | "to_bytes":
            return numbers
        case "indent" | "expandtabs":
            return len(str(value)) + (str(value).count("\n") + str(value).count("\t") + 1) * (numbers + texts)
        case "wordwrap" | "translate":
            return _size(value, most) * (1 + _size(given, most))
        case "tojson":
            return _size(value, most) * (1 + numbers)
        case "format":
            widths = sum(int(digits) for digits in _NUMBER.findall(str(value)) if len(digits) < 9)
            if "*" in str(value) or any(len(digits) > 8 for digits in _NUMBER.findall(str(value))):
                raise _TooMuch
            return len(str(value)) + widths + str(value).count("%") * _size(given, most)
    return 0


def _shown(value: Any) -> Any:
    """What a template writes; of other values Python writes an address, another one in every process."""
    if value is None or isinstance(value, str | int | float | list | tuple | dict | Undefined):
        return value
    raise TypeError(f"a {type(value).__name__} has no text; write `| list` or `| join` behind it")


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> list[Any]:
    environment: Any = context.environment
    found = list(itertools.islice(items, environment.steps + 1))
    environment.step(len(found))
    return found


@pass_context
def _measured(context: Context, value: Any) -> Any:
    environment: Any = context.environment
    return environment.measured(value)


@pass_context
def _read(context: Context, value: Any) -> Any:
    environment: Any = context.environment
    environment.read(value)
    return value


@pass_context
def _concatenated(context: Context, items: list[Any]) -> str:
    environment: Any = context.environment
    return environment.measured(environment.concat(map(str, items)))


class _Counted(NodeTransformer):
    """Loops, displays and `~`, which the sandbox does not intercept, through filters that count and measure."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _through("counted iterations", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through("measured text", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        if node.op in ("in", "notin") and not isinstance(node.expr, nodes.Const | nodes.List | nodes.Tuple):
            node.expr = _through("read", node.expr)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_constant(node.items) else _through("measured", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if _is_constant([pair.value for pair in node.items]) else _through("measured", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" or _is_constant(node.items) else _through("measured", node)


def _is_constant(items: Sequence[nodes.Expr]) -> bool:
    return all(isinstance(item, nodes.Const) for item in items)


def _through(filter: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, filter, [], [], None, None, lineno=node.lineno)
