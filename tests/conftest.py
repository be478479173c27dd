"""Eight CPU devices for the sharded tests, a cache of their own, and the data beside the project."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS") or "cpu"  # make test-gpu names another one
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the tests' own processes need room on the same GPU

# A program is compiled once for all workers and for all runs of the tests in this checkout, on every Python.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.abspath(f"{__file__}/../../.pytest_cache/xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import contextlib
import io
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath

from sftmix_jax.machine import command, host_memory, processes
from sftmix_jax.models import decoder, huggingface
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.hf_config import Ends, Special

jax.devices()  # all eight before any test: a plan for GPUs would take as many as it wants, for all tests behind it

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
FLOAT32 = Compute("float32", "none")
SMALL = Architecture(61, 32, 48, 2, 4, 2, 8, 128)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    os.environ["SFTMIX_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the project")
    return SHARED


@pytest.fixture
def undrawn(monkeypatch):
    """No files of figures, which take most of the time, for tests that look at a report's page and tables alone."""
    monkeypatch.setattr("sftmix_jax.analysis.drawing.draw", lambda figure, file: None)


def random_model(config: Architecture = SMALL, seed: int = 0):
    """Parameters large enough that every part of the model shows in its output."""
    abstract = decoder.build(config, FLOAT32)[1]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (0.3 * rng.standard_normal(a.shape)).astype(np.float32), abstract)


def save_model(folder: Path, config: Architecture, params) -> Path:
    huggingface.save(epath.Path(folder), config, params, Special(1, Ends((2,))))
    return folder


def run(*arguments: str, env: dict[str, str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
    """A command of the package, as a user runs it: one CPU device."""
    clean = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=clean | (env or {}),
        timeout=timeout,
        text=True,
        capture_output=True,
        check=False,
    )


class _Left(BaseException):
    """A command has ended with this code."""


def _leave(code: int) -> None:
    raise _Left(code)


def call(verb: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """A command of the package in this process, which saves its imports.

    For what a command says and with which code it ends; what is of the process itself (its devices, its standard input,
    its environment from the start on) takes `run`. An error of ours is raised here, where a process would show it.
    """
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, env or {}))  # its own changes end here too
        stack.enter_context(contextlib.chdir(ROOT))
        for place, name, value in (
            (sys, "argv", [verb, *arguments]),
            (sys, "stdout", out),
            (sys, "stderr", err),
            (sys, "__stdout__", out),
            (sys, "__stderr__", err),
            (sys, "excepthook", sys.excepthook),
            (processes, "leave", _leave),
            (host_memory, "keep_freed", lambda: None),
            (command, "_close_stdin", lambda: None),
        ):
            stack.enter_context(mock.patch.object(place, name, value))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # of runpy: imported before
        try:
            runpy.run_module(f"sftmix_jax.{verb}", run_name="__main__", alter_sys=True)
        except _Left as left:
            code = left.args[0]
        else:
            raise AssertionError(f"{verb} has not ended")
    said = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
    return subprocess.CompletedProcess([verb, *arguments], code, *said)
