"""The options of a command: a dataclass whose fields have ranges, read from the command line and listed by --help.

    @dataclasses.dataclass
    class Options:
        workdir: str = setting("", Text(), "the folder for stages and results")

An option is written as `--workdir=DIR` or `--workdir DIR`. A flag needs no value. A tuple takes values between commas,
or all arguments up to the next option. A field with the metadata of `config_file` collects `--config FILE[:ARGUMENTS]`
and `--config.FIELD=VALUE` as they are.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Flag, Items, Range, Table, Text, Tree, range_of, within

T = TypeVar("T")

Arguments = tuple[str, ...]


def config_file(load: Callable[[Arguments], Any], meaning: str) -> dict[str, Any]:
    """The metadata of an option for a config file; `load` gives its config, for --help to list the fields of."""
    return within(Items(Text()), meaning) | {"load": load}


def parse(kind: type[T], argv: Sequence[str]) -> T:
    """The options that the arguments give, each within its range. Raises UserError."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        found = re.match(r"--?([A-Za-z][^=]*)(=?)", argument)
        if not found:
            raise UserError(f"'{argument}' is not understood; options look like --workdir=DIR or --seed=1")
        name, values = found[1], [argument[found.end() :]] if found[2] else []
        field = fields.get(name.partition(".")[0])
        if field is None or ("." in name and "load" not in field.metadata):
            raise UserError(f"--{name}: no such option; {did_you_mean(name, fields)}")
        allowed = range_of(field)
        several = isinstance(allowed, Items) and "load" not in field.metadata
        while not found[2] and waiting and not waiting[0].startswith("--") and not isinstance(allowed, Flag):
            values.append(waiting.pop(0))
            if not several:
                break
        alone = field.metadata.get("alone")  # what it stands for where no value is given
        if (
            not values
            and alone is None
            and not isinstance(allowed, Flag)
            and not ("load" in field.metadata and "." in name)
        ):
            raise UserError(f"--{name} needs a value: --{name}=VALUE")
        if field.name in given and "load" not in field.metadata:
            raise UserError(f"--{name} is given twice; leave one out")
        if "load" in field.metadata:
            given[field.name] = (*given.get(field.name, ()), f"--{name}={values[0] if values else 'True'}")
        else:
            given[field.name] = alone if alone is not None and not values else _value(allowed, values)
    for name, value in given.items():
        for problem in range_of(fields[name]).problems(value, f"--{name}"):
            raise UserError(problem)
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise UserError(f"--{name} is missing: {field.metadata['meaning']}")
    return kind(**given)


def _value(allowed: Range, values: list[str]) -> Any:
    """What the texts behind an option stand for; none of them stands for True."""
    if len(values) > 1 and isinstance(allowed, Items):
        return tuple(allowed.item.value(each) for each in values)
    return allowed.value(values[0]) if values else True


def help_lines(kind: type, doc: str, argv: Sequence[str]) -> Iterator[str]:
    """A command's docstring and its options; with --config FILE also the fields of that config, with its values."""
    yield doc.strip()
    yield ""
    yield "Options:"
    loads: dict[str, Callable[[Arguments], Any]] = {}
    for field in dataclasses.fields(kind):
        if not field.metadata.get("meaning"):
            continue  # for the package's own use
        loads |= {field.name: field.metadata["load"]} if "load" in field.metadata else {}
        yield from _entry(f"--{field.name}", _default(field), range_of(field), field.metadata["meaning"])
    rest = [each for each in argv if each not in ("--help", "-h")]
    for name, load in loads.items():
        own = [each for each in joined(rest) if re.match(rf"--?{name}[.=]", each)]
        if own:
            yield ""
            yield f"Fields of {own[0].partition('=')[2]} (--{name}.FIELD=VALUE):"
            yield from _fields(load(tuple(own)), f"--{name}")


def joined(argv: Sequence[str]) -> list[str]:
    """The arguments with `--name value` written as `--name=value`."""
    pairs: list[str] = []
    for each in argv:
        if pairs and pairs[-1].startswith("-") and "=" not in pairs[-1] and not each.startswith("-"):
            pairs[-1] += f"={each}"
        else:
            pairs.append(each)
    return pairs


def _fields(config: Any, path: str) -> Iterator[str]:
    """Every field of a config tree."""
    for field in dataclasses.fields(config):
        allowed, value = range_of(field), getattr(config, field.name)
        where = f"{path}.{field.name}"
        if isinstance(allowed, Tree):
            yield from _fields(value, where)
        elif isinstance(allowed, Table) and isinstance(allowed.each, type):
            yield from _entry(f"{where}.NAME", "new", None, "adds an entry; None removes one")
            for key, item in value.items():
                yield from _fields(item, f"{where}.{key}")
        elif isinstance(allowed, Table):
            yield from _entry(f"{where}.KEY", "", allowed.item, field.metadata.get("meaning", ""))
            for key, item in value.items():
                yield from _entry(f"{where}.{key}", repr(item), allowed.item, "")
        else:
            yield from _entry(where, repr(value), allowed, field.metadata.get("meaning", ""))


def _default(field: dataclasses.Field[Any]) -> str:
    return "" if field.default in (dataclasses.MISSING, "", None, (), False) else repr(field.default)


def _entry(name: str, value: str, allowed: Range | None, meaning: str) -> Iterator[str]:
    """An option or field with its default or value; below it what it means, and its range."""
    yield f"  {name}" + (f"={value}" if value else "")
    rule = "" if allowed is None or (isinstance(allowed, Text | Flag) and not value) else allowed.described()
    told = "; ".join(filter(None, (meaning, rule)))
    width = max(40, shutil.get_terminal_size((100, 24)).columns - 1)
    yield from textwrap.wrap(told, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
