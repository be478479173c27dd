"""Write a stage as a folder that transformers loads.

python -m sftmix_jax.export --workdir DIR [--stage NAME] --out DIR [--dtype float32]
"""

from __future__ import annotations

import argparse
import sys

import jax
from etils import epath

from sftmix_jax import command
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.errors import UserError
from sftmix_jax.models import huggingface
from sftmix_jax.opening import stage_folders
from sftmix_jax.stages import architecture, check_tokenizer, on_one_device, read_stage, stage_params


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sftmix_jax.export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--stage", default="all", help="a stage's name or id (default: the last)")
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    options = parser.parse_args(sys.argv[1:])
    folder = stage_folders(epath.Path(options.workdir), options.stage)[-1]
    record = read_stage(folder)
    if record["name"] == "base":
        raise UserError("the base is a model folder already")
    check_tokenizer(folder)
    tokenizer = Tokenizer(str(folder / "tokenizer"))
    config = architecture(record)
    params = jax.device_get(stage_params(folder, on_one_device(config)))
    huggingface.save(
        epath.Path(options.out), config, params, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, dtype=options.dtype,
        save_tokenizer=tokenizer.save,
    )  # fmt: skip
    print(f"{folder.name} → {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command.run(main)
