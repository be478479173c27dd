"""Faults in the token cache: each is noticed and the tokens are made again, or the start would train on other ones.

python -m tests.campaigns.cache_faults [--faults 60] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from etils import epath

from sftmix_jax.data import cache
from sftmix_jax.data.cache import Examples
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import stages
from sftmix_jax.machine import manifest
from tests.campaigns import _scratch as scratch
from tests.campaigns import checkpoint_faults as faults

Harm = Callable[[Path, random.Random], None]


def file_harm(harm: Harm) -> Harm:
    def on_some_file(folder: Path, rng: random.Random) -> None:
        harm(rng.choice(sorted(f for f in folder.iterdir() if f.is_file())), rng)

    on_some_file.__name__ = f"{harm.__name__} a file"
    return on_some_file


def on(name: str, harm: Harm) -> Harm:
    def on_file(folder: Path, rng: random.Random) -> None:
        harm(folder / name, rng)

    on_file.__name__ = f"{harm.__name__} {name}"
    return on_file


def other_dtype(folder: Path, rng: random.Random) -> None:
    file = folder / "meta.json"
    file.write_text(file.read_text().replace("uint16", rng.choice(["uint32", "int8", "float16", "banana"])))


def of_another_source(folder: Path, rng: random.Random) -> None:
    other = next(f for f in folder.parent.iterdir() if f != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def half_built(folder: Path, rng: random.Random) -> None:
    for file in rng.sample(["manifest.json", "meta.json", "offsets.npy"], rng.randint(1, 3)):
        (folder / file).unlink()


def tokens_folder_a_file(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder.parent)
    folder.parent.write_text("x")


def tokens_folder_dangling(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder.parent)
    folder.parent.symlink_to("/nowhere/at/all")


def file_linked_to_itself(folder: Path, rng: random.Random) -> None:
    (folder / "tokens.bin").unlink()
    (folder / "tokens.bin").symlink_to("tokens.bin")


def a_pipe(folder: Path, rng: random.Random) -> None:
    (folder / "tokens.bin").unlink()
    os.mkfifo(folder / "tokens.bin")


HARMS: list[Harm] = [
    *map(file_harm, faults.FILE_HARMS),
    *(on("meta.json", harm) for harm in faults.JSON_HARMS),
    *(on("manifest.json", harm) for harm in faults.MANIFEST_HARMS),
    faults.folder_missing,
    faults.folder_a_file,
    faults.folder_dangling,
    other_dtype,
    of_another_source,
    half_built,
    tokens_folder_a_file,
    tokens_folder_dangling,
    file_linked_to_itself,
    a_pipe,
]


def same(one: Examples, other: Examples) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name, value in vars(other).items()
        if isinstance(value, np.ndarray)
    )
    rest = (one.rows, one.skipped, one.skipped_where, one.fingerprint)
    return arrays and rest == (other.rows, other.skipped, other.skipped_where, other.fingerprint)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin, counts = time.monotonic(), Counter[str]()
    chat = Chat("chatml", Tokenizer(str(stages.TINY)))
    source, other = Source("tiny:math,rows=60", bad_rows="skip"), Source("tiny:general,rows=60")
    with tempfile.TemporaryDirectory() as root_:
        root = Path(root_)
        os.environ["SFTMIX_CACHE"] = str(root / "whole")
        cache.tokenized("general", other, chat)
        wanted = cache.tokenized("math", source, chat)
        for number in range(options.faults):
            rng = random.Random(f"{options.seed} {number}")
            harm = HARMS[number % len(HARMS)]
            shutil.copytree(root / "whole", root / "copy")
            os.environ["SFTMIX_CACHE"] = str(root / "copy")
            folder = root / "copy" / "tokens" / wanted.fingerprint
            harm(folder, rng)
            try:
                with scratch.quiet() as said:
                    found = cache.tokenized("math", source, chat)
                lines = said.getvalue().splitlines()
                is_whole = folder.parent.is_dir() and manifest.damage(epath.Path(folder), {"source": folder.name})
                if not same(found, wanted):
                    result = "silent"
                elif harm is faults.folder_missing:
                    result = "made again" if not lines and not is_whole else "not restored"
                elif folder.parent.is_dir() and is_whole is not None:
                    result = "not restored"
                elif len(lines) != 1:
                    result = "without effect" if not lines else "said in several lines"
                else:
                    result = "made again"
            except Exception as error:
                result = f"crashed ({type(error).__name__}: {error})"
            counts[result] += 1
            if result not in ("made again", "without effect"):
                print(f"{number}: {harm.__name__}: {result}", file=sys.stderr)
            shutil.rmtree(root / "copy")
    good = counts["made again"] + counts["without effect"] == options.faults
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    seconds = time.monotonic() - begin
    print(
        f"token-cache faults: {options.faults}, silent {counts['silent']}, {listed}; {seconds:.0f} s; "
        f"{'passed' if good else 'FAILED'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
