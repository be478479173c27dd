"""Faults in what a stage has saved: each must be noticed or without effect, and training must restore the stage.

python -m tests.campaigns.checkpoint_faults [--faults 500] [--seed 0]

For every fault a copy of a finished two-stage experiment is damaged. Every second time it is first opened as sample and
evaluate open it, which must refuse or give the parameters of the undamaged run. Then the experiment is trained again,
which must end with the same params_sha256, and opening it must give these parameters.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from etils import epath

from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment import stage_training
from sftmix_jax.machine import compilation, manifest
from sftmix_jax.machine.errors import UserError
from tests.campaigns import _scratch as scratch

Harm = Callable[[Path, random.Random], None]


def flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes() or b"\0")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))


def truncate(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: rng.randrange(max(file.stat().st_size, 1))])


def extend(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.randint(1, 64)))


def zero(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes() or b"x")
    start = rng.randrange(len(data))
    end = min(len(data), start + 512)
    data[start:end] = bytes(end - start)
    file.write_bytes(bytes(data))


def delete(file: Path, rng: random.Random) -> None:
    file.unlink()


def dangling(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to("/nowhere")


def folder_instead(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def other_file(file: Path, rng: random.Random) -> None:
    file.write_bytes(rng.choice(sorted(f for f in file.parents[1].rglob("*") if f.is_file())).read_bytes())


FILE_HARMS: list[Harm] = [flip, flip, flip, truncate, extend, zero, delete, dangling, folder_instead, other_file]


def text(content: str) -> Harm:
    def write(file: Path, rng: random.Random) -> None:
        file.write_text(content)

    write.__name__ = f"write {content or 'nothing'}"
    return write


def half(file: Path, rng: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def wrong_type(file: Path, rng: random.Random) -> None:
    record = json.loads(file.read_text())
    record[rng.choice(sorted(record))] = rng.choice([None, [], "x", 7, {}])
    file.write_text(json.dumps(record))


def field_missing(file: Path, rng: random.Random) -> None:
    record = json.loads(file.read_text())
    del record[rng.choice(sorted(record))]
    file.write_text(json.dumps(record))


JSON_HARMS: list[Harm] = [
    flip,
    truncate,
    text(""),
    text("[]"),
    text("null"),
    text("{}"),
    text("[" * 20_000),
    half,
    wrong_type,
    field_missing,
    delete,
    dangling,
    folder_instead,
]


def entry_missing(file: Path, rng: random.Random) -> None:
    record = json.loads(file.read_text())
    del record["files"][rng.choice(sorted(record["files"]))]
    file.write_text(json.dumps(record))


def entry_changed(file: Path, rng: random.Random) -> None:
    record = json.loads(file.read_text())
    record["files"][rng.choice(sorted(record["files"]))] = rng.choice([None, [], [1, 2], "x"])
    file.write_text(json.dumps(record))


def empty_files(file: Path, rng: random.Random) -> None:
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "files": {}}))


MANIFEST_HARMS: list[Harm] = [*JSON_HARMS, entry_missing, entry_changed, empty_files]


def folder_missing(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)


def folder_a_file(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def folder_dangling(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("/nowhere")


def renamed_forward(folder: Path, rng: random.Random) -> None:
    folder.rename(folder.with_name(str(int(folder.name) + rng.randint(1, 9))))


def older_renamed(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("3"), folder)


def of_another_stage(folder: Path, rng: random.Random) -> None:
    other = next(f for f in folder.parents[2].iterdir() if (f / "done.json").exists() and f != folder.parents[1])
    shutil.rmtree(folder)
    shutil.copytree(other / "checkpoints" / folder.name, folder)


def params_of_another_stage(folder: Path, rng: random.Random) -> None:
    """With a manifest that fits: only the hash of the parameters differs."""
    other = next(f for f in folder.parents[2].iterdir() if (f / "done.json").exists() and f != folder.parents[1])
    record = json.loads((folder / "manifest.json").read_text())
    shutil.rmtree(folder / "params")
    shutil.copytree(other / "checkpoints" / folder.name / "params", folder / "params")
    manifest.seal(epath.Path(folder), record["of"])


def extra_file(folder: Path, rng: random.Random) -> None:
    rng.choice([folder / "params" / "extra", folder / "extra"]).write_bytes(rng.randbytes(9))


def damaged_twice(folder: Path, rng: random.Random) -> None:
    aside = folder.with_name(f"{folder.name}.damaged")
    rng.choice([aside.mkdir, lambda: aside.write_text("x"), lambda: aside.symlink_to("/nowhere")])()
    flip(rng.choice(sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size)), rng)


FOLDER_HARMS: list[Harm] = [
    folder_missing,
    folder_a_file,
    folder_dangling,
    renamed_forward,
    older_renamed,
    of_another_stage,
    params_of_another_stage,
    extra_file,
    damaged_twice,
]


def files(folder: Path, rng: random.Random) -> Path:
    """A file of a folder, large ones as often as small ones."""
    return rng.choice(sorted(f for f in folder.rglob("*") if f.is_file() and f.name != "manifest.json"))


# target → where it is in a stage's folder, what is done to it, and how often it is chosen
TARGETS: dict[str, tuple[Callable[[Path, random.Random], Path], list[Harm], int]] = {
    "newest checkpoint": (lambda stage, rng: files(stage / "checkpoints" / "6", rng), FILE_HARMS, 6),
    "older checkpoint": (lambda stage, rng: files(stage / "checkpoints" / "3", rng), FILE_HARMS, 1),
    "manifest": (lambda stage, rng: stage / "checkpoints" / "6" / "manifest.json", MANIFEST_HARMS, 4),
    "checkpoint folder": (lambda stage, rng: stage / "checkpoints" / "6", FOLDER_HARMS, 4),
    "done.json": (lambda stage, rng: stage / "done.json", JSON_HARMS, 2),
    "stage.json": (lambda stage, rng: stage / "stage.json", JSON_HARMS, 2),
    "tokenizer": (lambda stage, rng: files(stage / "tokenizer", rng), FILE_HARMS, 2),
    "tokenizer manifest": (lambda stage, rng: stage / "tokenizer" / "manifest.json", MANIFEST_HARMS, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    compilation.set_up()
    stage_training.make_trainer = scratch.compiled_once(stage_training.make_trainer)
    begin, counts, wrong = time.monotonic(), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as root_:
        root = Path(root_)
        config = scratch.experiment(scratch.save_model(root / "model"))
        with scratch.quiet():
            folders = [Path(f).name for f in experiments.run(config, epath.Path(root / "whole"))]
        wanted = {name: scratch.open_params(root / "whole" / "stages" / name) for name in folders}
        for number in range(options.faults):
            rng = random.Random(f"{options.seed} {number}")
            target = rng.choices(list(TARGETS), [weight for *_, weight in TARGETS.values()])[0]
            place, harms, _ = TARGETS[target]
            harm, name = rng.choice(harms), rng.choice(folders)
            shutil.copytree(root / "whole", root / "copy", symlinks=True)
            stage = root / "copy" / "stages" / name
            harm(place(stage, rng), rng)
            found = outcome(config, root / "copy", wanted, name, reads_first=number % 2 == 0)
            counts[found] += 1
            if found not in ("noticed", "without effect"):
                wrong.append(f"{number}: {harm.__name__} on {target} of {name}: {found}")
                print(wrong[-1], file=sys.stderr)
            shutil.rmtree(root / "copy")
            if number % 50 == 49:
                print(f"{number + 1} faults, {time.monotonic() - begin:.0f} s: {dict(counts)}", file=sys.stderr)
    print(
        f"checkpoint faults: {options.faults}, noticed {counts['noticed']}, without effect {counts['without effect']}, "
        f"silent {counts['silent']}, "
        f"not restored {sum(n for name, n in counts.items() if name.startswith('not restored'))}, "
        f"crashed {sum(n for name, n in counts.items() if name.startswith('crashed'))}; "
        f"{time.monotonic() - begin:.0f} s; {'FAILED' if wrong else 'passed'}"
    )
    return 1 if wrong else 0


def outcome(config, workdir: Path, wanted: dict[str, str], name: str, reads_first: bool) -> str:
    noticed = False
    try:
        with scratch.quiet() as said:
            if reads_first:
                try:
                    if scratch.open_params(workdir / "stages" / name) != wanted[name]:
                        return "silent"
                except UserError:
                    noticed = True
            experiments.run(config, epath.Path(workdir))
            noticed |= any(word in said.getvalue() for word in ("damaged", "set aside", "written again"))
            for each, params_sha256 in wanted.items():
                done = json.loads((workdir / "stages" / each / "done.json").read_text())
                try:
                    found = {done["params_sha256"], scratch.open_params(workdir / "stages" / each)}
                except UserError:  # only a reader looks at the parameters themselves; its advice must do
                    noticed = True
                    experiments.run(config, epath.Path(workdir))
                    found = {scratch.open_params(workdir / "stages" / each)}
                if found != {params_sha256}:
                    return "silent"
    except UserError as error:
        return f"not restored ({error})" if noticed else f"crashed ({error})"
    except Exception as error:
        return f"crashed ({type(error).__name__}: {str(error)[:200]})"
    return "noticed" if noticed else "without effect"


if __name__ == "__main__":
    sys.exit(main())
