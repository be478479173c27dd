"""The plan of a GPU's first minutes: where it stops, what it expects of which card, what it does not begin."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from sftmix_jax.data import loader


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks/gpu.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_benchmark"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_its_batches_are_those_of_the_loader(gpu):
    batch = gpu.packed_rows(gpu.TINY, 2, 50)
    assert {name: array.dtype for name, array in batch.items()} == {k: np.dtype(v) for k, v in loader.DTYPES.items()}
    assert batch["segment_ids"].max() > 1 and 0 < batch["loss_weights"].mean() < 1


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("grain", "ml_collections", "datasets", "array_record", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import gpu

from sftmix_jax.sampling import decode, sampler

print(gpu.training(gpu.TINY, "micro", "float32", "none", "plain", 1)["note"])
"""


def test_it_runs_where_packages_of_the_data_are_missing():
    env = os.environ | {"PYTHONPATH": f"{ROOT}/benchmarks:{ROOT}", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run([sys.executable, "-c", WITHOUT], env=env, text=True, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("plain, first step")


def limits(card: str, gib: float) -> dict:
    return {"card": card, "memory": gib * 2**30, "flops": 7e14, "bandwidth": 3e12}


def printed(gpu, monkeypatch, capsys, can: dict, *arguments: str) -> list[str]:
    """What main prints where each line gives 1,000 tokens/s."""
    ran = iter([can])

    def alone(measure, until):
        return next(ran, {"tokens": 1000.0})

    monkeypatch.setattr(gpu, "alone", alone)
    monkeypatch.setattr("sys.argv", ["gpu.py", *arguments])
    gpu.main()
    return capsys.readouterr().out.splitlines()


def test_it_stops_where_there_is_no_gpu(gpu, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="jax finds no GPU here, but cpu; --tiny runs all of this on a CPU"):
        printed(gpu, monkeypatch, capsys, limits("cpu", 10))


@pytest.mark.parametrize(
    ("card", "gib", "decode", "trains", "moments"),
    [
        ("NVIDIA H100 80GB HBM3", 74.8, "130–180", "7,000–9,500", "needs 79 GiB of 75"),
        ("NVIDIA H200", 132, "190–260", "7,000–9,500", "1,000"),
        ("NVIDIA A100-SXM4-80GB", 75, "1,000", "1,000", "needs 79 GiB of 75"),
    ],
)
def test_cards_are_told_apart(gpu, monkeypatch, capsys, card, gib, decode, trains, moments):
    lines = printed(gpu, monkeypatch, capsys, limits(card, gib))
    decodes = "7b decode, batch 1 "
    shown = {name: next(line for line in lines if name in line) for name in (decodes, "moments", "4 rows")}
    assert decode in shown[decodes] and trains in shown["4 rows"] and moments in shown["moments"]
    assert ("–" in shown["4 rows"]) == ("H" in card.split()[1])
    order = [i for name in ("1b float32", "7b bfloat16", "7b decode", "transformers 7b") for i, line in enumerate(lines)
             if name in line]  # fmt: skip
    assert order[0] < lines.index(shown["4 rows"]) < lines.index(shown[decodes])
