"""Damages the header of a safetensors file in many ways and compares our reader with the safetensors package.

python tests/campaigns/safetensors_headers.py [--count 600] [--seed 0]

A header counts as a fault if we accept it where the package refuses the file, or if we read other numbers than the
package does. Prints one verdict; exit code 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import tensors

Header = dict[str, Any]
NUMBERS = [0, 1, -1, 3, 4, 7, 64, 2**31, 2**63 - 1, 2**64, 1.0, 2.5, True, False, None, "4", [], {}, 1e300]
DTYPES = ["F32", "F16", "BF16", "F64", "I32", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "f32", "", "X", None, 32, []]


def sound_file() -> tuple[Header, bytes]:
    """A header and the data behind it: tensors of several float dtypes and shapes, one of them empty."""
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 6), "b": (6, 4), "c": (3,), "empty": (0, 4), "d": (2, 3, 2), "e": (6, 4)}
    dtypes = {"a": np.float32, "b": np.float32, "c": np.float16, "empty": np.float32, "d": np.float64, "e": np.float32}
    raw = safetensors.numpy.save(
        {name: rng.standard_normal(shape).astype(dtypes[name]) for name, shape in shapes.items()}, {"format": "pt"}
    )
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def _pick(rng: random.Random, header: Header) -> Header:
    return header[rng.choice([name for name in header if name != "__metadata__"])]


def _offset(rng: random.Random, header: Header) -> None:
    entry = _pick(rng, header)
    side = rng.randrange(2)
    shift = rng.choice([-64, -8, -4, -1, 1, 4, 8, 64])
    entry["data_offsets"][side] = rng.choice([entry["data_offsets"][side] + shift, rng.choice(NUMBERS)])


def _shift(rng: random.Random, header: Header) -> None:
    entry, by = _pick(rng, header), rng.choice([-8, -4, 4, 8, 48])
    entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]


def _swap(rng: random.Random, header: Header) -> None:
    one, other = _pick(rng, header), _pick(rng, header)
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]


def _reverse(rng: random.Random, header: Header) -> None:
    entry = _pick(rng, header)
    field = rng.choice(["data_offsets", "shape"])
    entry[field] = entry[field][::-1]


def _shape(rng: random.Random, header: Header) -> None:
    entry = _pick(rng, header)
    entry["shape"] = rng.choice(
        [
            [*entry["shape"], rng.choice(NUMBERS)],
            entry["shape"][:-1],
            [rng.choice(NUMBERS)],
            [2**33, 2**33],
            6,
            None,
            "6",
        ]
    )


def _dtype(rng: random.Random, header: Header) -> None:
    _pick(rng, header)["dtype"] = rng.choice(DTYPES)


def _lose(rng: random.Random, header: Header) -> None:
    if rng.random() < 0.5:
        del header[rng.choice([name for name in header if name != "__metadata__"])]
    else:
        entry = _pick(rng, header)
        del entry[rng.choice(sorted(entry))]


def _more(rng: random.Random, header: Header) -> None:
    entry = _pick(rng, header)
    change: Callable[[], Any] = rng.choice(
        [
            lambda: header.update(copy=json.loads(json.dumps(entry))),
            lambda: header.update(other={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
            lambda: header.update({"": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
            lambda: entry.update(strides=[1]),
            lambda: entry["data_offsets"].append(0),
            lambda: header.update(__metadata__=rng.choice([[], 3, {"format": 3}, {"format": None}, None, {"x": {}}])),
            lambda: header.update(alien=rng.choice([[], 3, None, {}, "x"])),
        ]
    )
    change()


FIELDS = [_offset, _shift, _swap, _reverse, _shape, _dtype, _lose, _more]


def damaged(rng: random.Random, header: Header, data: bytes) -> tuple[str, bytes]:
    """The kind of damage, and a whole file with it."""
    header = json.loads(json.dumps(header))
    kind = rng.choice(["fields", "fields", "fields", "bytes", "text", "length", "size"])
    if kind == "fields":
        for change in rng.choices(FIELDS, k=rng.choice([1, 1, 2])):
            try:
                change(rng, header)
            except (TypeError, KeyError, AttributeError, IndexError):  # the first change left nothing for the second
                continue
    text = json.dumps(header, separators=(",", ":")).encode()
    if kind == "bytes":
        raw = bytearray(text)
        for _ in range(rng.choice([1, 1, 2, 5])):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        text = bytes(raw)
    elif kind == "text":
        first = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}).encode()
        text = rng.choice(
            [
                text + b" " * rng.randrange(1, 9),
                b" " + text,
                text + b"\0" * 8,
                text + b"x",
                b"\xef\xbb\xbf" + text,
                text.decode().encode("utf-16"),
                b"[" + text + b"]",
                text[: rng.randrange(len(text))],
                text.replace(b'"a"', b'"b"', 1),
                text.replace(b'"a"', b'"\\ud800"', 1),
                text.replace(b'"a"', b'"\\u0062"', 1),
                b'{"a":' + first + b"," + text[1:],
                text[:-1] + b',"a":' + first + b"}",
                text.replace(b'"shape"', b'"shape":[4,6],"shape"', 1),
                text.replace(b"[0,", b"[00,", 1),
                text.replace(b"[0,", b"[-0,", 1),
                text.replace(b"[0,", b"[0e0,", 1),
                text.replace(b"[0,", b"[NaN,", 1),
                b"{}",
                b"",
                b"null",
            ]
        )
    length = len(text)
    if kind == "length":
        length = rng.choice([0, 1, length - 1, length + 1, length + 8, 2**31, 2**63, 2**64 - 1, 100 * 2**20 + 1])
    elif kind == "size":
        data = rng.choice([data[:-1], data[:-4], data + b"\0", data + b"\0" * 4, b"", data[: rng.randrange(len(data))]])
    raw = length.to_bytes(8, "little") + text + data
    return kind, raw[: rng.randrange(8)] if kind == "size" and rng.random() < 0.1 else raw


def theirs(file: Path) -> dict[str, np.ndarray] | None:
    """The file as the safetensors package reads it; None if it refuses."""
    try:
        return safetensors.numpy.load_file(file)
    except safetensors.SafetensorError:
        return None
    except (KeyError, TypeError, AttributeError):  # a dtype that numpy lacks
        return {}


def ours(file: Path) -> dict[str, np.ndarray] | None:
    """The float tensors of the same file as this package reads them; None if it refuses."""
    try:
        folder = tensors.Folder(epath.Path(file.parent))
    except UserError:
        return None
    found = {}
    for name in folder.where:
        try:
            found[name] = folder.read(name)
        except UserError:  # not float, or not finite
            continue
    return found


def same(mine: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    """True if every tensor that was read is the package's."""
    return all(
        name in expected and np.array_equal(array, expected[name].astype(np.float32)) for name, array in mine.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts = random.Random(options.seed), Counter[str]()
    header, data = sound_file()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        for number in range(options.count):
            kind, raw = damaged(rng, header, data)
            file.write_bytes(raw)
            expected, mine = theirs(file), ours(file)
            counts["refused by the package"] += expected is None
            counts["refused by us"] += mine is None
            if mine is not None and (expected is None or not same(mine, expected)):
                counts["faults"] += 1
                print(f"{number} ({kind}): {raw[:300]!r}", file=sys.stderr)
            counts["refused by us alone"] += mine is None and expected is not None
    verdict = ", ".join(
        f"{counts[name]} {name}"
        for name in ("refused by the package", "refused by us", "refused by us alone", "faults")
    )
    print(f"{options.count} damaged safetensors headers (seed {options.seed}): {verdict}")
    return int(counts["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main())
