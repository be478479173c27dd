"""SIGKILL at random moments, half of them within saves: every resumed run equals the uninterrupted one, bit for bit.

python -m tests.campaigns.kills [--count 200] [--seed 0]

The machinery of `sftmix_jax.resume_check` on a chain of two stages of a very small model. Importing the package takes
longer than training it, so that each start is forked from a process that has imported it and nothing more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from etils import epath

from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.config import read
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.models import decoder, huggingface
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.hf_config import Ends, Special
from sftmix_jax.resuming import shortening
from sftmix_jax.resuming.check import Check, duration
from sftmix_jax.resuming.runs import Layout
from tests.campaigns._forked import launch

CONFIG = """
from sftmix_jax.experiment import strategies
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment.config import Experiment, ModelConfig, Stage
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config():
    pattern = Stage(batch=BatchConfig(batch_size=4, seq_len=64), optimizer=OptimizerConfig(learning_rate=1e-3))
    specialised = {"code": Share(count=200), "math": Share(count=200)}
    return Experiment(
        name="kills",
        domains={name: Source(f"tiny:{name},rows=400", validation_rows=8) for name in ("math", "code", "general")},
        stages=strategies.dmt(pattern, specialised, {"general": Share(count=300)}, k=1 / 8),
        model=ModelConfig(init="hf:MODEL"),
        template="chatml",
    )
"""


def save_model(folder: Path) -> None:
    """A random model of two layers with the tiny base's tokenizer."""
    architecture = Architecture(1536, 16, 32, 2, 2, 1, 8, 128, tied=True)
    abstract = decoder.build(architecture, Compute("float32", "none"))[1]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: (0.3 * rng.standard_normal(a.shape)).astype(np.float32), abstract)
    huggingface.save(epath.Path(folder), architecture, params, Special(1, Ends((2,))))
    Tokenizer(str(TINY)).save(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ["JAX_PLATFORMS"] = "cpu"  # of the runs; jax has read it here already
    jax.config.update("jax_platforms", "cpu")
    os.environ["SFTMIX_CACHE"] = str(folder / "cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "xla")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    begin = time.monotonic()
    whole, file = folder / "whole.py", folder / "shortened.py"
    save_model(folder / "model")
    whole.write_text(CONFIG.replace("MODEL", str(folder / "model")))
    arguments = [f"--config={whole}"]
    lengths = shortening.measure(read(arguments), 12)
    shortening.write(file, arguments, str(whole), lengths)
    found = Check(file, folder, [Layout(1)], options.count, seed=options.seed, launch=launch).run()
    hits = ", ".join(f"{count} {where}" for where, count in found.hits().most_common())
    if found.difference:
        print(f"kills: DIFFERENT after {len(found.kills)} kills ({hits}): {found.difference}\nsee {folder}")
        return 1
    shutil.rmtree(folder)
    print(
        f"kills: {len(found.kills)} of {options.count} equal ({hits}), {found.lines} steps compared, "
        f"{duration(time.monotonic() - begin)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
