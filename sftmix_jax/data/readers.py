"""Files, hub and TFDS datasets → rows, each with its place."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import glob
import io
import itertools
import json
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax.data import compressed, web
from sftmix_jax.data.meanings import WEIGHTS
from sftmix_jax.machine.errors import UserError


class Row(NamedTuple):
    where: str  # file:line or file[index], for messages to the user
    value: dict[str, Any]


def read(path: str) -> Iterator[Row]:
    """All rows of a path (see `Source.path`) in stored order. Raises UserError at the first that cannot be read."""
    if kind := dataset(path):
        yield from DATASETS[kind](os.path.expanduser(path.removeprefix(f"{kind}:")))
        return
    for file in files(path):
        suffix = compressed.suffix(file)
        if suffix not in _FILES:
            raise UserError(f"{file}: cannot read '{suffix}'; use {_readable()}")
        yield from _FILES[suffix](file)


def dataset(path: str) -> str:
    """The key of DATASETS that reads a path; empty for files."""
    kind = path.partition(":")[0]
    if kind in DATASETS:
        return kind
    if not path.strip():
        return ""  # no path is not the working directory
    folder = Path(path).expanduser()  # local ones alone
    return "hf" if any((folder / name).exists() for name in _SAVED) else ""


_SAVED = ("dataset_info.json", "dataset_dict.json")  # what `save_to_disk` of a dataset, or of its splits, writes


def _readable() -> str:
    return f"{', '.join(_FILES)} (all but .parquet and ArrayRecord also .gz or .zst)"


def files(path: str) -> list[epath.Path]:
    """The files of a path: a file, a folder, a glob, or several of these with commas between.

    A file that has just this name is meant, whatever is in it. Files of a folder or a glob are sorted.
    Raises UserError where there are none, and for a file that is named twice, or linked.
    """
    if not path.strip(" ,"):
        raise UserError("a domain has no path: set --config.domains.NAME.path=FILE")
    if any("://" in part and "**" in part for part in path.split(",")):
        raise UserError(f"{path}: '**' works on local files alone; name the folders")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its tracebacks: the error is reported in one line
    try:
        return _files(path)
    except ImportError as error:  # fsspec's, of the package that reads a kind of storage
        raise UserError(f"{path}: cannot be read here ({error}); install that package with pip") from None
    except UserError:
        raise
    except Exception as error:
        if "://" not in path:
            raise
        if isinstance(error, KeyError):  # of the kinds of storage
            known = f"no kind of storage that is read here; known are {', '.join(web.SCHEMES)}, gs:// and s3://"
            raise UserError(f"{path}: {known}") from None
        said = f"{type(error).__name__}: {str(error)[:160]}"
        raise UserError(f"{path}: cannot be read ({said}); check the name, the credentials and the network") from None


def _files(path: str) -> list[epath.Path]:
    if not path.startswith(web.SCHEMES) and _is_file(path):
        return [epath.Path(os.path.expanduser(path))]
    found = [file for part in path.split(",") for file in _matching(part.strip())]
    first: dict[Any, epath.Path] = {}
    for file in found:
        known = first.setdefault(_itself(file), file)
        if known is not file:
            other = "twice" if known == file else f"and {known}, which are the same file (a link)"
            raise UserError(f"{path}: names {file} {other}, and its rows would be there twice; leave it out once")
    return found


def _itself(file: epath.Path) -> Any:
    """What a file is under all its names and links; of a bucket's, its address."""
    if "://" in str(file):
        return file
    try:
        status = os.stat(file)
    except OSError:  # such as a link to nothing, which is reported when it is read
        return file
    return status.st_dev, status.st_ino


def _is_file(path: str) -> bool:
    return epath.Path(os.path.expanduser(path)).is_file()


def _matching(pattern: str) -> list[epath.Path]:
    """The files of a file's name, a folder or a glob. Raises UserError where there are none."""
    if pattern.startswith(web.SCHEMES):
        return [web.fetched(pattern)]
    pattern = os.path.expanduser(pattern)
    whole = epath.Path(pattern)
    if whole.is_file():
        return [whole]
    if whole.is_dir():
        held = sorted(file for file in whole.iterdir() if not file.name.startswith("."))
        if deeper := [file.name for file in held if file.is_dir()]:
            raise UserError(f"{pattern}: has the folder '{deeper[0]}' in it; name the files, as '{pattern}/**/*.jsonl'")
        found = [file for file in held if compressed.suffix(file) in _FILES]
        if not found:
            raise UserError(f"{pattern}: a folder without a file that can be read ({_readable()})")
        return found
    if not glob.has_magic(pattern):
        raise UserError(f"no file {pattern}: check the path (relative paths start from the working directory)")
    every = whole.parent.glob(whole.name) if "://" in pattern else map(epath.Path, glob.iglob(pattern, recursive=True))
    if not (found := sorted(file for file in every if not file.is_dir())):
        raise UserError(f"no file {pattern}: check the path (relative paths start from the working directory)")
    return found


# --- JSON ---------------------------------------------------------------------------------------


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte 0x{data[error.start]:02x}); convert it, e.g. with iconv") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the key {twice!a} stands twice in one object")
    return found


def _parse(text: str, where: str) -> Any:
    """JSON without repeated keys: Python would keep the last value and drop the others."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"{where}:{error.lineno}" if "\n" in text.strip() else where
        raise UserError(f"{where}: malformed JSON, column {error.colno}: {error.msg}; mend or delete it") from None
    except RecursionError:
        raise UserError(f"{where}: JSON is nested too deeply to be read; mend or delete it") from None
    except ValueError as error:  # a repeated key, or an integer of thousands of digits
        raise UserError(f"{where}: JSON that cannot be used: {error}; mend or delete it") from None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _as_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a row must be a JSON object, this is a {type(value).__name__}")
    return Row(where, value)


# The marks of encodings other than UTF-8 at the head of a file; UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def _lines(file: epath.Path) -> Iterator[bytes]:
    """The file's lines in UTF-8, unpacked; they end at "\\n" alone, as U+2028 and U+0085 may stand in JSON's strings.

    Raises UserError with the line at which the file is damaged.
    """
    number = 0
    try:
        with compressed.opened(file) as stream:
            first = stream.readline()
            lines: Iterable[bytes] = itertools.chain([first] if first else [], stream)
            for mark, encoding in _MARKS.items():
                if first.startswith(mark):
                    lines = io.BytesIO(_recoded(first + stream.read(), encoding, file))
                    break
            for line in lines:
                number += 1
                yield line
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"{file}:{number + 1}: the file cannot be read from here on ({error}); copy or download it again"
        ) from None


def _recoded(data: bytes, encoding: str, file: epath.Path) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: its mark says {encoding}, but it is not ({error.reason} at byte {error.start})"
        ) from None


def json_values(file: epath.Path, remedy: str) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file with their places: one a line, or one that goes over several lines.

    Keys that stand twice in an object are refused. Raises UserError, which ends with `remedy` for what is no JSON.
    """
    if not file.is_file():
        raise UserError(f"{file}: is a folder; name a file in it" if file.is_dir() else f"no file {file}")
    texts = [(f"{file}:{number}", line) for number, line in enumerate(_lines(file), 1)]
    texts = [(where, line) for where, line in texts if line.removeprefix(codecs.BOM_UTF8).strip()]
    if len(texts) > 1 and texts[0][1].rstrip()[-1:] in b"[{,":  # no row of a file of rows ends so
        texts = [(str(file), b"".join(_lines(file)))]
    for where, line in texts:
        try:
            yield where, json.loads(_decode(line, where), object_pairs_hook=_object)
        except RecursionError:
            raise UserError(f"{where}: must be JSON that is not nested so deeply; {remedy}") from None
        except ValueError as error:  # no JSON, a repeated key, or an integer of thousands of digits
            raise UserError(f"{where}: must be JSON ({error}); {remedy}") from None


def json_rows(file: epath.Path, remedy: str) -> list[tuple[str, Any]]:
    """As `json_values`; the items of a file that holds one list are its rows."""
    values = list(json_values(file, remedy))
    if len(values) == 1 and isinstance(values[0][1], list):
        return [(f"{file}[{index}]", row) for index, row in enumerate(values[0][1])]
    return values


def _read_jsonl(file: epath.Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            where = f"{file}:{number}"
            if number == 1 and line.strip() in (b"{", b"["):
                raise UserError(f"{where}: a row must be one line; name the file .json if it is one JSON list")
            yield _as_row(_parse(_decode(line, where), where), where)


def _read_json(file: epath.Path) -> Iterator[Row]:
    text = _decode(b"".join(_lines(file)), str(file))
    first, _, more = text.strip().partition("\n")
    if more and _is_object(first):
        yield from _read_jsonl(file)  # JSON lines under a .json name
        return
    rows = _parse(text, str(file))
    if isinstance(rows, dict):
        name = next((name for name in _WRAPPED if isinstance(rows.get(name), list)), "")
        if name:
            raise UserError(f"{file}: must hold a list of rows; save the list in '{name}' alone")
        rows = [rows]  # one row
    if not isinstance(rows, list):
        raise UserError(f"{file}: must hold a list of rows, or one JSON object per line")
    for index, value in enumerate(rows):
        yield _as_row(value, f"{file}[{index}]")


_WRAPPED = ("data", "rows", "train", "examples", "items")  # of a JSON object, what holds the rows of a file


# --- tables of texts ----------------------------------------------------------------------------


def _read_table(file: epath.Path, delimiter: str) -> Iterator[Row]:
    """CSV and TSV: the first line names the columns, every cell is text; weights are read as numbers."""
    lines = (_decode(line, f"{file}:{number}") for number, line in enumerate(_lines(file), 1))
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    csv.field_size_limit(sys.maxsize)
    names: list[str] = []
    try:
        for cells in table:
            where = f"{file}:{table.line_num}"
            if not names:
                names = [name.strip() for name in cells]
                names[0] = names[0] or "index"  # as pandas writes it
                if twice := [name for i, name in enumerate(names) if not name or name in names[:i]]:
                    raise UserError(f"{where}: the column name '{twice[0]}' is empty or stands twice; rename it")
            elif cells and len(cells) != len(names):
                raise UserError(
                    f"{where}: {len(cells)} cells, and {len(names)} columns; quote cells that hold a "
                    f"{'tab' if delimiter == chr(9) else 'comma'}"
                )
            elif cells:
                yield Row(where, {name: _weight(name, cell) for name, cell in zip(names, cells, strict=True)})
    except csv.Error as error:
        raise UserError(f"{file}:{table.line_num}: not a table ({error}); correct it, or save it as .jsonl") from None


def _weight(name: str, cell: str) -> Any:
    """What a cell says: a number, true or false in a column that weighs the loss, and text in any other."""
    if name in WEIGHTS:
        with contextlib.suppress(ValueError):
            return json.loads(cell.lower())
    return cell


# --- other containers ---------------------------------------------------------------------------


def _read_parquet(file: epath.Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet as pq

    index = 0
    try:
        with file.open("rb") as stream:
            for batch in pq.ParquetFile(stream).iter_batches(1024):
                for value in batch.to_pylist():
                    yield Row(f"{file}[{index}]", _without_nulls(value))
                    index += 1
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file}: not a readable Parquet file from row {index} on ({error})") from None


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """The row without null members inside its columns.

    The structs of a column share their members, so a member that only other rows have is null in this one.
    """

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if item is not None}
        return [without(item) for item in value] if isinstance(value, list) else value

    return {key: without(value) for key, value in row.items()}


def _read_array_record(file: epath.Path) -> Iterator[Row]:
    """ArrayRecord files whose records are JSON objects."""
    from grain.sources import ArrayRecordDataSource

    try:
        records = ArrayRecordDataSource(str(file))
        count = len(records)
    except Exception as error:  # the reader has no exceptions of its own
        raise UserError(f"{file}: not a readable ArrayRecord file ({str(error)[:160]})") from None
    for index in range(count):
        where = f"{file}[{index}]"
        try:
            data = records[index]
        except Exception as error:
            raise UserError(f"{where}: not readable ({str(error)[:160]}); copy or download the file again") from None
        yield _as_row(_parse(_decode(data, where), where), where)


_FILES: dict[str, Callable[[epath.Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".array_record": _read_array_record,
    ".arrayrecord": _read_array_record,
    ".csv": functools.partial(_read_table, delimiter=","),
    ".tsv": functools.partial(_read_table, delimiter="\t"),
}


def _read_hub(spec: str) -> Iterator[Row]:
    """`ID[:CONFIG][:SPLIT]` through `datasets`, or a folder that `save_to_disk` wrote."""
    import datasets

    name, *rest = spec.split(":")
    if not name:
        raise UserError("hf: names no dataset; write hf:ID or hf:FOLDER")
    split = rest.pop() if rest else "train"
    try:
        if (Path(name) / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(name)[split]
        elif (Path(name) / "dataset_info.json").exists():
            if len(spec.split(":")) > 1:
                raise UserError(f"hf:{spec}: the folder holds one dataset without splits; leave ':{split}' out")
            rows = datasets.load_from_disk(name)
        else:
            rows = datasets.load_dataset(name, *rest, split=split)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"hf:{spec}: the hub could not give it ({type(error).__name__}: {str(error)[:120]}); check the name, "
            "the config and split, and the network, or download it and name the file"
        ) from None
    for index, value in enumerate(_guarded(rows, f"hf:{spec}")):
        yield _as_row(_without_nulls(value) if isinstance(value, dict) else value, f"hf:{spec}[{index}]")


def _read_tfds(spec: str) -> Iterator[Row]:
    """`NAME_OR_DIR[:SPLIT]`: random access to ArrayRecord builders, without TensorFlow."""
    import tensorflow_datasets as tfds

    name, _, split = spec.partition(":")
    if not name:
        raise UserError("tfds: names no dataset; write tfds:NAME or tfds:FOLDER")
    try:
        builder = tfds.builder_from_directory(name) if Path(name).is_dir() else tfds.builder(name)
        rows = builder.as_data_source(split or "train")
    except Exception as error:
        raise UserError(
            f"tfds:{spec}: {type(error).__name__}: {str(error)[:160]}; the builder must be prepared "
            'with file_format="array_record"'
        ) from None
    for index, value in enumerate(_guarded((rows[i] for i in range(len(rows))), f"tfds:{spec}")):
        where = f"tfds:{spec}[{index}]"
        yield _as_row(_plain(value, where), where)


def _guarded(rows: Iterable[Any], where: str) -> Iterator[Any]:
    """The rows; what fails while one is read becomes a UserError with its place."""
    index = 0
    try:
        for row in rows:
            yield row
            index += 1
    except Exception as error:
        raise UserError(f"{where}[{index}]: not readable ({type(error).__name__}: {str(error)[:160]})") from None


def _plain(value: Any, where: str) -> Any:
    """TFDS' bytes and numpy arrays as str and lists; a dict of lists (a TFDS Sequence) as a list of dicts."""
    if isinstance(value, bytes):
        return _decode(value, where)
    if isinstance(value, dict):
        plain = {key: _plain(item, where) for key, item in value.items()}
        if plain and all(isinstance(item, list) for item in plain.values()) and len({*map(len, plain.values())}) == 1:
            return [dict(zip(plain, items, strict=True)) for items in zip(*plain.values(), strict=True)]
        return plain
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    return [_plain(item, where) for item in value] if isinstance(value, list) else value


def _read_tiny(spec: str) -> Iterator[Row]:
    from sftmix_jax.tiny import domains

    for index, value in enumerate(domains.read_train(spec)):
        yield Row(f"tiny:{spec}[{index}]", value)


DATASETS: dict[str, Callable[[str], Iterator[Row]]] = {"hf": _read_hub, "tfds": _read_tfds, "tiny": _read_tiny}
