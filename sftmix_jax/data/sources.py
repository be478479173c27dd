"""A domain's source: where its rows are, how they become conversations, and what identifies them."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from sftmix_jax.data import compressed, filters, formats, readers, tagger, user_functions
from sftmix_jax.data.messages import BadRow, Conversation
from sftmix_jax.data.readers import Row
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Choice, Integer, Number, Table, Text, setting, within

_LOOKED_AT = 1000  # rows in search of one in a known format
_READING = 6  # part of every fingerprint: raise it when rows would become other conversations


@dataclasses.dataclass
class Source:
    """Where a domain's rows are, and how to read them."""

    path: str = setting(
        "",
        Text(),
        "FILE, folder or glob, or several with commas between (.jsonl .json .csv .tsv, also .gz or .zst; .parquet "
        ".array_record; gs:// too), hf:ID[:CONFIG][:SPLIT], tfds:NAME_OR_DIR[:SPLIT], tiny:DOMAIN[,rows=N][,hard=true]",
    )
    format: str = setting(
        "auto",
        Choice(("auto", *formats.FORMATS)),
        "auto: told by `columns`, else by the first row that has the columns of one",
    )
    columns: dict[str, str] = dataclasses.field(
        default_factory=dict, metadata=within(Table(Text()), "our column → the file's column; '' leaves it out")
    )
    convert: str = setting(
        "", Text(), 'FILE.py:FUNCTION, row → turns or {"messages": turns, "tools": …}, for any other format'
    )
    bad_rows: str = setting(
        "refuse",
        Choice(("refuse", "skip")),
        "what happens to a row that cannot be used (no answer, a role that the template lacks, …); skip counts them",
    )
    validation_rows: int = setting(0, Integer(at_least=0), "rows that are kept out of training for the validation loss")
    without: str = setting("", Text(), "leave out rows with any of these tags, as code,math; they are counted")
    tagger: str = setting(
        "", Text(), "what tags rows: column:NAME, or FILE.py:FUNCTION (row → tags); by default data/tagger.py"
    )
    expected_rows: int = setting(0, Integer(at_least=0), "usable rows, for costs before the data is available")
    expected_tokens: float = setting(
        0.0, Number(at_least=0), "mean tokens per row, cut to `seq_len`, for costs before the data is available"
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if self.tagger and not self.without:
            yield f"{where}.tagger: '{self.tagger}'; no row is left out by its tags unless {where}.without names some"


def read_rows(source: Source) -> Iterator[Row]:
    """All rows in stored order. Raises UserError at the first that cannot be read."""
    return readers.read(source.path)


def read_conversations(source: Source) -> Iterator[tuple[str, Conversation | BadRow]]:
    """Each row's place with its conversation, or with the reason why it has none.

    Raises UserError for files that cannot be read, settings that do not fit the rows, and a source without rows.
    """
    formats.check_columns(source.columns)
    leave_out = filters.leave_out(source.without, source.tagger)
    rows = read_rows(source)
    head = list(itertools.islice(rows, 1))
    if not head:
        raise UserError(f"{source.path}: holds no rows")
    first = head[0]
    convert = _converter(source, head, rows)
    unseen = {theirs or ours for ours, theirs in source.columns.items()}
    for row in itertools.chain(head, rows):
        unseen -= row.value.keys()
        try:
            conversation = convert(row.value)
            filters.check(conversation.messages)
            leave_out(row.value, conversation.messages)
        except BadRow as reason:
            yield row.where, reason
        else:
            yield row.where, conversation
    if unseen:
        missing, known = min(unseen), [str(name) for name in first.value]
        advice = did_you_mean(missing, known)
        raise UserError(f"{first.where}: no row has the column '{missing}' that `columns` names; {advice}")


def _converter(source: Source, head: list[Row], rows: Iterator[Row]) -> Callable[[dict[str, Any]], Conversation]:
    """How this source's rows become conversations, told by its settings or by its first row in a known format.

    The rows that are read in search of it are added to `head`. Raises UserError where none is in a known format.
    """
    if source.convert:
        if source.columns or source.format != "auto":
            other = "columns" if source.columns else "format"
            raise UserError(
                f"{other}: has no effect beside convert '{source.convert}', which gets every row as it is stored; "
                f"remove `{other}`, and let the function name the fields"
            )
        return functools.partial(_call, user_functions.load("convert", source.convert))
    while True:
        if layout := formats.layout(source.format, source.columns, head[-1].value):
            return functools.partial(formats.conversation, layout=layout)
        following = next(rows, None) if len(head) < _LOOKED_AT else None
        if following is None:
            raise formats.unknown(head[0].where, head[0].value, source.columns)
        head.append(following)


def _call(function: Callable[[dict[str, Any]], Any], row: dict[str, Any]) -> Conversation:
    return formats.converted(user_functions.call("convert", function, row))


def fingerprint(source: Source) -> str:
    """A hash of everything that decides the conversations: file contents and how they are read."""
    settings: dict[str, Any] = {
        "reading": _READING,
        "format": source.format,
        "columns": source.columns,
        "bad_rows": source.bad_rows,
    }
    if source.convert:
        settings["convert"] = user_functions.digest("convert", source.convert)
    if source.without:
        settings |= {"without": source.without, "tagger": source.tagger or f"version {tagger.VERSION}"}
        if source.tagger and not source.tagger.startswith("column:"):
            settings["tagger"] = user_functions.digest("tagger", source.tagger)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if source.path.startswith("tiny:"):
        digest.update(_tiny_digest(source.path))
    elif readers.dataset(source.path):
        digest.update(source.path.encode())
        for row in read_rows(source):  # content, since a hub dataset can change under its name
            digest.update(json.dumps(row.value, sort_keys=True, default=str).encode())
    else:
        for file in readers.files(source.path):
            digest.update(f"\0{compressed.suffix(file)}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
    return digest.hexdigest()[:16]


@functools.lru_cache
def _tiny_digest(path: str) -> bytes:
    """The toy's rows come from code, which does not change while it runs."""
    rows = "".join(json.dumps(row.value, sort_keys=True, default=str) for row in readers.read(path))
    return hashlib.sha256(rows.encode()).digest()
