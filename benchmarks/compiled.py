"""llama2-7b's training step as the TPU compiler sees it, ours and MaxText's: bytes a chip, bytes sent. No TPU needed.

python benchmarks/compiled.py                                    # ours; the extra 'plan', Python 3.12 or later
python3.12 -m venv MT && MT/bin/pip install 'maxtext[tpu]==0.2.5'
MT/bin/python benchmarks/compiled.py --maxtext                   # theirs

Both: 16 rows of 2,048 tokens (one a chip on more), everything recomputed in the backward pass, float32 state and
gradients, bfloat16 compute, split over all chips. What is sent is counted by the same code. Compare within one version
of jax.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from typing import Any

ROWS, LENGTH = 16, 2048
TOPOLOGIES = {  # MaxText's name, chips
    "v5p:2x2x2": ("v5p-16", 8),
    "v5e:4x4": ("v5e-16", 16),
    "v6e:4x4": ("v6e-16", 16),
    "v5p:4x4x4": ("v5p-128", 64),
    "v5e:16x16": ("v5e-256", 256),
}
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
}


def rows(chips: int) -> int:
    return max(ROWS, chips)


def show(topology: str, state: int, temporaries: int, sent: dict[str, int]) -> None:
    import jax

    kinds = {"state": state, "temporaries": temporaries, "sent": sum(sent.values())}
    numbers = "  ".join(f"{kind} {size / 2**30:6.2f} GiB" for kind, size in kinds.items())
    print(f"jax {jax.__version__}  {topology:10} {numbers}", flush=True)


def ours(topology: str) -> None:
    from sftmix_jax.experiment.tuning import Tuning
    from sftmix_jax.models import families
    from sftmix_jax.models.compute import Compute
    from sftmix_jax.parallel.sharding import MeshConfig
    from sftmix_jax.planning import aot
    from sftmix_jax.training.optimizer import OptimizerConfig

    found = aot.find_topology(topology)
    step = aot.compile_step(
        Tuning(families.preset("llama2-7b")),
        Compute("bfloat16", "full", "splash"),
        OptimizerConfig(),
        MeshConfig(),
        found,
        rows=rows(found.chips),
        length=LENGTH,
        domains=3,
        grad_accum_steps=1,
    )
    show(topology, step.arguments, step.temporaries, step.collectives)


def theirs(topology: str) -> None:
    """MaxText's own ahead-of-time compile, its result looked at."""
    import maxtext
    from maxtext.trainers.pre_train import train_compile

    compile_it = train_compile.jit_and_compile

    def compile_and_show(*arguments: Any, **named: Any) -> Any:
        compiled = compile_it(*arguments, **named)
        memory = compiled.memory_analysis()
        rest = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        show(topology, memory.argument_size_in_bytes, rest, counter().bytes_sent(compiled.as_text()))
        return compiled

    train_compile.jit_and_compile = compile_and_show
    name, chips = TOPOLOGIES[topology]
    base = Path(maxtext.__file__).parent / "configs" / "base.yml"
    try:
        train_compile.main(_maxtext_arguments(str(base), name, chips))
    finally:
        train_compile.jit_and_compile = compile_it


def _maxtext_arguments(base: str, name: str, chips: int) -> list[str]:
    return [
        "train_compile",
        base,
        "model_name=llama2-7b",
        f"compile_topology={name}",
        "compile_topology_num_slices=1",
        f"per_device_batch_size={rows(chips) // chips}",
        f"max_target_length={LENGTH}",
        "remat_policy=full",
        "run_name=plan",
        "base_output_directory=/tmp/maxtext",
        "enable_checkpointing=false",
        "skip_jax_distributed_system=true",
    ]


def counter() -> Any:
    """Our count of what a program sends, without the package, which MaxText's environment lacks."""
    file = Path(__file__).parents[1] / "sftmix_jax" / "planning" / "collectives.py"
    spec = importlib.util.spec_from_file_location("collectives", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maxtext", action="store_true")
    parser.add_argument("--topologies", nargs="+", default=list(TOPOLOGIES), choices=list(TOPOLOGIES))
    options = parser.parse_args()
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    for topology in options.topologies:
        (theirs if options.maxtext else ours)(topology)


if __name__ == "__main__":
    main()
