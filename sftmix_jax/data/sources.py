"""Rows as stored → messages, wherever and in whatever common format they are stored."""

import dataclasses
import functools
import glob
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from etils import epath

from sftmix_jax.data import tagger
from sftmix_jax.data.messages import BadRow, Conversation, LeftOut, Message
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.ranges import Choice, Integer, Number, Table, Text, setting, within


@dataclasses.dataclass
class Source:
    """Where a domain's rows are, and how to read them."""

    # FILE or glob (.jsonl .json .parquet .array_record, gs:// too), hf:ID[:CONFIG][:SPLIT], tfds:NAME_OR_DIR[:SPLIT],
    # tiny:DOMAIN[:ROWS[:hard]]
    path: str = setting("", Text())
    # a key of FORMATS; auto: told by the first row's columns
    format: str = setting("auto", Choice(lambda: ("auto", *FORMATS)))
    # our column → the file's column
    columns: dict[str, str] = dataclasses.field(default_factory=dict, metadata=within(Table(Text())))
    convert: str = setting("", Text())  # FILE.py:FUNCTION, row → [{"role", "content"}, …], for any other format
    # a row without an answer, with a role that the template lacks, …
    bad_rows: str = setting("refuse", Choice(("refuse", "skip")))
    held_out: int = setting(0, Integer(at_least=0))  # rows kept out of training, for the held-out loss
    without: str = setting("", Text())  # leave out rows with any of these tags, e.g. code,math; they are counted
    # what tags rows: column:NAME, or FILE.py:FUNCTION (row → tags); by default data/tagger.py
    tagger: str = setting("", Text())
    expected_rows: int = setting(0, Integer(at_least=0))  # for costs before the data is here: rows that can be used,
    expected_tokens: float = setting(0.0, Number(at_least=0))  # and tokens of one, cut to the batch's length


class Row(NamedTuple):
    where: str  # file:line or file[index], for messages to the user
    value: dict[str, Any]


# --- rows ---------------------------------------------------------------------------------------


def read_rows(source: Source) -> Iterator[Row]:
    """All rows in stored order. Raises UserError at the first that cannot be read."""
    kind, _, rest = source.path.partition(":")
    if not source.path:
        raise UserError("a domain has no path: set --config.domains.NAME.path=FILE")
    if kind in _READERS:
        yield from _READERS[kind](rest)
        return
    for file in files(source.path):
        suffixes = file.suffixes[:-1] if file.suffix == ".gz" else file.suffixes
        match suffixes[-1] if suffixes else "":
            case ".jsonl" | ".ndjson":
                yield from _read_jsonl(file)
            case ".json":
                yield from _read_json(file)
            case ".parquet":
                yield from _read_parquet(file)
            case ".array_record" | ".arrayrecord":
                yield from _read_array_record(file)
            case other:
                raise UserError(f"{file}: cannot read '{other}'; use .jsonl, .json, .parquet or .array_record")


def files(pattern: str) -> list[epath.Path]:
    """The files of a path or glob, sorted. Raises UserError where there are none."""
    if glob.has_magic(pattern):
        root = epath.Path(pattern)
        fixed = epath.Path(root.parts[0])
        parts = list(root.parts[1:])
        while parts and not glob.has_magic(parts[0]):
            fixed /= parts.pop(0)
        found = sorted(fixed.glob("/".join(parts)))
    else:
        found = [epath.Path(pattern)] if epath.Path(pattern).is_file() else []
    if not found:
        raise UserError(f"no file {pattern}: check the path (relative paths start from the working directory)")
    return found


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte 0x{data[error.start]:02x}); convert it, e.g. with iconv") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: malformed JSON, column {error.colno}: {error.msg}; mend or delete it") from None


def _open(file: epath.Path) -> Any:
    return gzip.open(file.open("rb")) if file.suffix == ".gz" else file.open("rb")


def _as_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a row must be a JSON object, this is a {type(value).__name__}")
    return Row(where, value)


def _read_jsonl(file: epath.Path) -> Iterator[Row]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                where = f"{file}:{number}"
                yield _as_row(_parse(_decode(line, where), where), where)


def _read_json(file: epath.Path) -> Iterator[Row]:
    with _open(file) as stream:
        text = _decode(stream.read(), str(file))
    if text.lstrip().startswith("{") and "\n{" in text.strip():
        yield from _read_jsonl(file)  # JSON lines under a .json name
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: malformed JSON, column {error.colno}: {error.msg}") from None
    if not isinstance(rows, list):
        raise UserError(f"{file}: must hold a list of rows (or one JSON object a line)")
    for index, value in enumerate(rows):
        yield _as_row(value, f"{file}[{index}]")


def _read_parquet(file: epath.Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with file.open("rb") as stream:
        try:
            index = 0
            for batch in pq.ParquetFile(stream).iter_batches(1024):
                for value in batch.to_pylist():
                    yield Row(f"{file}[{index}]", value)
                    index += 1
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not a readable Parquet file ({error})") from None


def _read_array_record(file: epath.Path) -> Iterator[Row]:
    """ArrayRecord files whose records are JSON objects."""
    from grain.sources import ArrayRecordDataSource

    records = ArrayRecordDataSource(str(file))
    for index in range(len(records)):
        where = f"{file}[{index}]"
        yield _as_row(_parse(_decode(records[index], where), where), where)


def _read_hub(spec: str) -> Iterator[Row]:
    """`ID[:CONFIG][:SPLIT]` through `datasets`, or a folder that `save_to_disk` wrote."""
    import datasets

    name, *rest = spec.split(":")
    split = rest.pop() if rest else "train"
    try:
        if Path(name).is_dir() and (Path(name) / "dataset_info.json").exists():
            rows = datasets.load_from_disk(name)
        else:
            rows = datasets.load_dataset(name, *rest, split=split)
    except Exception as error:
        raise UserError(
            f"hf:{spec}: the hub could not give it ({type(error).__name__}: {str(error)[:120]}); check the name, "
            "the config and split, and the network, or download it and name the file"
        ) from None
    for index, value in enumerate(rows):
        yield Row(f"hf:{spec}[{index}]", value)


def _read_tfds(spec: str) -> Iterator[Row]:
    """`NAME_OR_DIR[:SPLIT]`: random access to ArrayRecord builders, without TensorFlow."""
    import tensorflow_datasets as tfds

    name, _, split = spec.partition(":")
    try:
        builder = tfds.builder_from_directory(name) if Path(name).is_dir() else tfds.builder(name)
        rows = builder.as_data_source(split or "train")
    except Exception as error:
        raise UserError(
            f"tfds:{spec}: {type(error).__name__}: {str(error)[:160]}; the builder must be prepared "
            'with file_format="array_record"'
        ) from None
    for index in range(len(rows)):
        yield Row(f"tfds:{spec}[{index}]", _plain(rows[index]))


def _plain(value: Any) -> Any:
    """TFDS' bytes and numpy arrays as str and lists; a dict of lists (a TFDS Sequence) as a list of dicts."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items()}
        if plain and all(isinstance(item, list) for item in plain.values()):
            return [dict(zip(plain, items, strict=True)) for items in zip(*plain.values(), strict=True)]
        return plain
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _read_tiny(spec: str) -> Iterator[Row]:
    from sftmix_jax.tiny import domains

    name, _, part = spec.partition(":")
    if name not in domains.DOMAINS:
        raise UserError(f"no toy domain 'tiny:{name}'; {did_you_mean(name, domains.DOMAINS)}")
    for index, value in enumerate(domains.train_rows(name, *domains.part(part))):
        yield Row(f"tiny:{spec}[{index}]", value)


_READERS: dict[str, Callable[[str], Iterator[Row]]] = {"hf": _read_hub, "tfds": _read_tfds, "tiny": _read_tiny}


def fingerprint(source: Source) -> str:
    """A hash of everything that decides the messages: file contents and how they are read."""
    settings = {"format": source.format, "columns": source.columns, "bad_rows": source.bad_rows}
    if source.without:
        settings |= {"without": source.without, "tagger": source.tagger or f"version {tagger.VERSION}"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if source.convert:
        digest.update(Path(source.convert.partition(":")[0]).read_bytes())
    if source.tagger and not source.tagger.startswith("column:"):
        digest.update(Path(source.tagger.partition(":")[0]).read_bytes())
    if source.path.startswith("tiny:"):
        digest.update(_tiny_digest(source.path))
    elif source.path.partition(":")[0] in _READERS:
        digest.update(source.path.encode())
        for row in read_rows(source):  # content, since a hub dataset can change under its name
            digest.update(json.dumps(row.value, sort_keys=True, default=str).encode())
    else:
        for file in files(source.path):
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
    return digest.hexdigest()[:16]


@functools.lru_cache
def _tiny_digest(path: str) -> bytes:
    """The toy's rows come from code, which does not change while it runs."""
    rows = "".join(json.dumps(row.value, sort_keys=True, default=str) for row in read_rows(Source(path)))
    return hashlib.sha256(rows.encode()).digest()


# --- formats ------------------------------------------------------------------------------------

Convert: TypeAlias = Callable[[dict[str, Any]], list[Message]]

_ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant",
    "system": "system",
    "tool": "tool", "function": "tool", "function_call": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip


def _turns(turns: Any, role_key: str, content_key: str) -> list[Message]:
    if not isinstance(turns, list):
        raise BadRow("no list of messages")
    messages = []
    for turn in turns:
        role = turn.get(role_key) if isinstance(turn, dict) else None
        if role not in _ROLES:
            raise BadRow(f"unknown role '{role}'")
        content = turn.get(content_key)
        if not isinstance(content, str):
            raise BadRow(f"a message whose {content_key} is not text")
        messages.append(Message(_ROLES[role], content))
    return messages


def _pair(prompt: str, answer: str) -> Convert:
    def convert(row: dict[str, Any]) -> list[Message]:
        return [Message("user", _text(row, prompt)), Message("assistant", _text(row, answer))]

    return convert


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise BadRow(f"no text in column '{column}'")
    return value


def _alpaca(answer: str) -> Convert:
    def convert(row: dict[str, Any]) -> list[Message]:
        instruction, extra = _text(row, "instruction"), row.get("input") or ""
        prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
        return [Message("user", prompt), Message("assistant", _text(row, answer))]

    return convert


# name → (columns that tell it, conversion); the first whose columns are all there is taken
FORMATS: dict[str, tuple[tuple[str, ...], Convert]] = {
    "messages": (("messages",), lambda row: _turns(row.get("messages"), "role", "content")),
    "sharegpt": (("conversations",), lambda row: _turns(row.get("conversations"), "from", "value")),
    "alpaca": (("instruction", "output"), _alpaca("output")),
    "alpaca_response": (("instruction", "response"), _alpaca("response")),
    "prompt_completion": (("prompt", "completion"), _pair("prompt", "completion")),
    "prompt_response": (("prompt", "response"), _pair("prompt", "response")),
    "question_answer": (("question", "answer"), _pair("question", "answer")),
    "query_response": (("query", "response"), _pair("query", "response")),
    "text": (("text",), lambda row: [Message("text", _text(row, "text"))]),
}


def converter(source: Source, first: Row) -> Convert:
    """How this source's rows become messages, told by its settings or by its first row."""
    if source.convert:
        function = _user_function("convert", source.convert)
        return lambda row: _turns(function(row), "role", "content")
    renames = source.columns

    def renamed(convert: Convert) -> Convert:
        if not renames:
            return convert
        return lambda row: convert({**row, **{ours: row.get(theirs) for ours, theirs in renames.items()}})

    if source.format != "auto":
        if source.format not in FORMATS:
            raise UserError(f"format '{source.format}': {did_you_mean(source.format, FORMATS)}")
        return renamed(FORMATS[source.format][1])
    present = set(first.value) | set(renames)
    for columns, convert in FORMATS.values():
        if present.issuperset(columns):
            return renamed(convert)
    wanted = "; ".join("+".join(columns) for columns, _ in FORMATS.values())
    raise UserError(
        f"{first.where}: columns {', '.join(map(str, first.value))} are no known format ({wanted}); map them, "
        "e.g. columns={'prompt': 'their_name', 'response': 'their_name'}, or name a function in `convert`"
    )


def _tagger(source: Source) -> Callable[[dict[str, Any], list[Message]], set[str]]:
    """Tags of a row and its messages."""
    kind, _, column = source.tagger.partition(":")
    if not source.tagger:
        return lambda row, messages: tagger.tags(messages)
    if kind == "column":

        def stored(row: dict[str, Any], messages: list[Message]) -> set[str]:
            if column not in row:
                raise BadRow(f"no tags in column '{column}'")
            found = row[column]
            return set(found.split(",")) if isinstance(found, str) else set(found or ())

        return stored
    function = _user_function("tagger", source.tagger)
    return lambda row, messages: set(function(row))


def _user_function(field: str, spec: str) -> Callable[[dict[str, Any]], Any]:
    path, _, name = spec.partition(":")
    if not Path(path).is_file() or not name:
        raise UserError(f"{field} '{spec}': must be FILE.py:FUNCTION, and the file must exist")
    module_spec = importlib.util.spec_from_file_location("user_function", path)
    assert module_spec and module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise UserError(f"{path}: has no function {name}; {did_you_mean(name, vars(module))}")
    return getattr(module, name)


def check(messages: list[Message]) -> None:
    """Raise BadRow for a conversation that nothing can be learned from."""
    if messages and messages[0].role == "text":
        if not messages[0].content.strip():
            raise BadRow("empty text")
        return
    answers = [m for m in messages if m.role == "assistant"]
    if not answers:
        raise BadRow("no answer")
    if any(not m.content.strip() for m in answers):
        raise BadRow("an empty answer")
    if messages[0].role == "assistant":
        raise BadRow("starts with an answer")


def read_conversations(source: Source) -> Iterator[tuple[str, Conversation | BadRow]]:
    """Each row's place with its conversation, or with the reason why it has none."""
    convert: Convert | None = None
    wanted_out = {tag for tag in source.without.split(",") if tag}
    tags = _tagger(source) if wanted_out else lambda row, messages: set()
    for row in read_rows(source):
        convert = convert or converter(source, row)
        try:
            messages = convert(row.value)
            check(messages)
            if found := wanted_out & tags(row.value, messages):
                raise LeftOut(f"tagged {', '.join(sorted(found))}")
            yield row.where, Conversation(messages)
        except BadRow as reason:
            yield row.where, reason
    if convert is None:
        raise UserError(f"{source.path}: holds no rows")
