"""What a machine has is found without jax; memory that XLA frees on a CPU stays with the process."""

import os
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

from sftmix_jax.machine import compilation, host_memory

FAULTS = """
import resource, sys
from sftmix_jax.machine import host_memory
if sys.argv[1] == "kept":
    host_memory.keep_freed()
import jax, jax.numpy as jnp

@jax.jit
def through_a_wide_layer(x, wide, narrow):  # 64 MiB between the two products
    return (x @ wide) @ narrow

arrays = jnp.ones((4096, 64)), jnp.ones((64, 4096)), jnp.ones((4096, 1))
for _ in range(12):
    through_a_wide_layer(*arrays).block_until_ready()
windows = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        through_a_wide_layer(*arrays).block_until_ready()
    windows.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(windows)[3])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_steps_temporary_memory_is_not_faulted_in_again():
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device, as users have
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, how], cwd=ROOT, env=env))
        for how in ("kept", "given back")
    )
    if given_back < 6 * (64 << 20) // 4096:
        pytest.skip(f"only {given_back} faults: this jaxlib keeps its memory by itself")
    assert kept < given_back / 100  # small arrays may take a piece of what was freed: then it is made anew, once


@pytest.mark.parametrize(
    ("nodes", "devices", "wanted"),
    [
        (["accel/accel0"], [("0x8086", "0x120000")], (False, False)),  # a laptop's NPU
        (["vfio/7"], [("0x10de", "0x030000")], (False, False)),  # a GPU that is lent to a virtual machine
        (["vfio/0", "vfio/vfio"], [("0x1ae0", "0xff0000")], (True, False)),  # TPU v5 and later
        (["accel0"], [("0x1ae0", "0x088000")], (True, False)),  # v4
        (["accel/accel0"], [("0x8086", "0x120000"), ("0x1ae0", "0x020000")], (False, False)),  # Google's network card
        (["vfio/vfio"], [("0x1ae0", "0xff0000")], (False, False)),  # one that this container may not use
        (["nvidia3", "nvidiactl"], [("0x10de", "0x030200")], (False, True)),  # one of a host's GPUs in a container
        (["dxg"], [], (False, True)),
        ([], [], (False, False)),
    ],
)
def test_a_machine_s_accelerators_are_known_by_their_makers(tmp_path, monkeypatch, nodes, devices, wanted):
    for name in nodes:
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    for number, (vendor, kind) in enumerate(devices):
        folder = tmp_path / "pci" / str(number)
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    monkeypatch.setattr(host_memory, "_DEV", tmp_path / "dev")
    monkeypatch.setattr(host_memory, "_PCI", tmp_path / "pci")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (host_memory.has_tpu(), host_memory.has_gpu()) == wanted
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not host_memory.has_gpu()


def driver(version: str) -> str:
    return f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\nGCC version:  12.3.0\n"


@pytest.mark.parametrize(
    ("cuda", "version", "said"),
    [
        (
            13,
            "570.86.10",
            "is 570.86.10, and jax here is for CUDA 13, which wants 580.65 or later: install a later "
            "driver, or pip install 'sftmix-jax[cuda12]' in its place (from 525 on); JAX_PLATFORMS=cpu",
        ),
        (12, "470.82", "for CUDA 12, which wants 525.60 or later: install a later driver; JAX_PLATFORMS=cpu"),
        (12, "535.104.05", "jax cannot use the GPU of this machine (Unable to initialize backend 'cuda': no device)"),
        (13, "", "jax cannot use the GPU of this machine"),
    ],
)
def test_a_driver_that_is_too_old_is_named_with_what_to_do(tmp_path, monkeypatch, cuda, version, said):
    if version:
        (tmp_path / "version").write_text(driver(version))
    monkeypatch.setattr(compilation, "_DRIVER", tmp_path / "version")
    monkeypatch.setattr(compilation, "_cuda", lambda: cuda)
    assert said in compilation.no_gpu(RuntimeError("Unable to initialize backend 'cuda': no device\nmore"))
    assert compilation.no_gpu(RuntimeError("RESOURCE_EXHAUSTED")) == ""


OLD_DRIVER = """
import dataclasses
from jax._src import hardware_utils
from sftmix_jax.machine import command, compilation
hardware_utils.has_visible_nvidia_gpu = lambda: True
compilation.has_accelerator = compilation.has_gpu = lambda: True
compilation._cuda = lambda: 13
compilation._driver = lambda: (535, 104, 5)

def main(options):
    import jax
    print(jax.devices())

command.run(main, dataclasses.make_dataclass('Options', []))
"""


def test_no_command_goes_on_with_the_cpu_where_jax_cannot_use_the_gpu():
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    command = [sys.executable, "-c", OLD_DRIVER]
    found = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    assert found.returncode == 2 and not found.stdout, found
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: the NVIDIA driver of this machine is 535.104.5, and jax here is for CUDA 13")
