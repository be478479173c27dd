"""How much host memory a streamed import takes above the shards that it makes.

python benchmarks/importing.py [--preset 7b] [--folder DIR]

Writes a model folder of the preset in bfloat16 (13.5 GB for 7b) where there is none, reads it in a process of its own
onto this machine's devices in bfloat16, and prints the anonymous memory at its peak and after: what the kernel could
not take back. Pages of the files themselves are the kernel's, and not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from sftmix_jax.models import families, hf_config, huggingface, layout
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import sharding
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.sampler import abstract_params

GIB = 2**30


def write(folder: Path, config: Architecture) -> None:
    """A folder of random weights, a file a layer."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    files: dict[str, dict[str, np.ndarray]] = {}
    for name, parts in layout.stored(families.parameters(config)).items():
        theirs = layout.stored_shape(parts)
        for i in range(config.num_layers if parts[0].in_layer else 1):
            tensor = np.broadcast_to(rng.standard_normal(theirs[-1]).astype(ml_dtypes.bfloat16), theirs)
            files.setdefault(f"model-{i:03}.safetensors", {})[name.format(i)] = tensor
    for name, tensors in files.items():
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / name)
    special = hf_config.Special(1, hf_config.Ends((2,)))
    (folder / "config.json").write_text(json.dumps(hf_config.fields(config, special, "bfloat16")))


def anonymous() -> int:
    """This process's anonymous memory, bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def read(folder: Path) -> None:
    """Import, with an eye on the memory."""
    import jax

    config = hf_config.read(folder)
    mesh = sharding.make_mesh(sharding.MeshConfig())
    before = peak = anonymous()
    going_on = True

    def look() -> None:
        nonlocal peak
        while going_on:
            peak = max(peak, anonymous())
            time.sleep(0.01)

    watch = threading.Thread(target=look)
    watch.start()
    begin = time.monotonic()
    params = huggingface.stream(folder, abstract_params(Setup(config, Compute("bfloat16", "none"), mesh)))
    seconds = time.monotonic() - begin
    going_on = False
    watch.join()
    held = sum(x.nbytes for x in jax.tree.leaves(params))
    print(
        f"{jax.device_count()} devices: shards {held / GIB:.2f} GiB, peak {(peak - before - held) / GIB:.2f} GiB above "
        f"them, afterwards {(anonymous() - before - held) / GIB:.2f}; {seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="7b")
    parser.add_argument("--folder", type=Path, default=Path("runs/synthetic"))
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / options.preset
    if options.read:
        return read(folder)
    if not (folder / "config.json").exists():
        write(folder, families.preset(options.preset))
    for devices in (1, 4):
        env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        again = [sys.executable, __file__, "--preset", options.preset, "--folder", str(options.folder), "--read"]
        subprocess.run(again, env=env, check=True)


if __name__ == "__main__":
    main()
