"""A small experiment of two stages that trains within a second, for campaigns that run it many times in one process."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from etils import epath

from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import stages
from sftmix_jax.experiment.config import CheckpointConfig, Experiment, LoggingConfig, ModelConfig, Stage
from sftmix_jax.machine import array_hash
from sftmix_jax.models import huggingface, llama
from sftmix_jax.models.hf_config import Ends, Special
from sftmix_jax.models.llama import Compute, LlamaConfig
from sftmix_jax.training.optimizer import OptimizerConfig

ARCHITECTURE = LlamaConfig(1536, 16, 32, 2, 2, 1, 8, 128, tied=True)


def save_model(folder: Path, seed: int = 0) -> Path:
    """A random model with the toy's tokenizer."""
    abstract = llama.build(ARCHITECTURE, Compute("float32", "none"))[1]
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda a: (0.3 * rng.standard_normal(a.shape)).astype(np.float32), abstract)
    huggingface.save(epath.Path(folder), ARCHITECTURE, params, Special(1, Ends((2,))))
    Tokenizer(str(stages.TINY)).save(epath.Path(folder))
    return folder


def experiment(model: Path, keep: int = 2, name: str = "campaign") -> Experiment:
    """Two stages of six steps, saved after every third one."""

    def stage(mixture: dict[str, Share]) -> Stage:
        batch, optimizer = BatchConfig(batch_size=2, seq_len=64), OptimizerConfig(learning_rate=1e-2)
        return Stage(mixture=mixture, steps=6, batch=batch, optimizer=optimizer)

    mixtures = {"first": {"math": Share(count=20)}, "second": {"general": Share(count=20), "math": Share(count=4)}}
    return Experiment(
        name=name,
        domains={name: Source(f"tiny:{name}:40", validation_rows=4) for name in ("math", "general")},
        stages={name: stage(mixture) for name, mixture in mixtures.items()},
        model=ModelConfig(init=f"hf:{model}"),
        template="chatml",
        checkpoints=CheckpointConfig(every=3, keep=keep),
        logging=LoggingConfig(every=1),
    )


def compiled_once(make_trainer: Callable[..., Any]) -> Callable[..., Any]:
    """`make_trainer` for many runs of one process, as all stages here have the same shapes."""
    made: dict[Any, Any] = {}

    def shared(*arguments: Any, **settings: Any) -> Any:
        key = (settings["domains"], settings["grad_accum_steps"])
        if key not in made:
            made[key] = make_trainer(*arguments, **settings)
        return made[key]

    return shared


@contextlib.contextmanager
def quiet() -> Any:
    """Keeps what a run prints; → the buffer with it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        yield said


def open_params(folder: Path) -> str:
    """What a reader of a finished stage gets, as the hash of its parameters. Raises UserError."""
    record = stages.read_stage(epath.Path(folder))
    stages.check_tokenizer(epath.Path(folder))
    abstract = stages.on_one_device(stages.architecture(record))
    return array_hash.tree_digest(stages.stage_params(epath.Path(folder), abstract))
