"""The plan of a GPU's first minutes: where it stops, what it expects of which card, what it does not begin."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

from benchmarks.gpu import __main__ as table
from benchmarks.gpu import alone, sizes, theirs, training
from sftmix_jax.data import loader


def test_its_batches_are_those_of_the_loader():
    batch = sizes.packed_rows(sizes.TINY, 2, 50)
    assert {name: array.dtype for name, array in batch.items()} == {k: np.dtype(v) for k, v in loader.DTYPES.items()}
    assert batch["segment_ids"].max() > 1 and 0 < batch["loss_weights"].mean() < 1


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("grain", "ml_collections", "datasets", "array_record", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from benchmarks.gpu import __main__, sizes, training
from sftmix_jax.sampling import decode, sampler

for rank in (0, 2):
    print(training.training(sizes.TINY, "micro", "float32", "none", "plain", 1, rank)["note"])
"""


@pytest.mark.slow
def test_it_runs_where_packages_of_the_data_are_missing():
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    found = subprocess.run([sys.executable, "-c", WITHOUT], env=env, text=True, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("plain, first step") == 2


def test_the_documents_that_trl_gets_are_those_of_the_rows():
    batch, documents = sizes.packed_rows(sizes.TINY, 2, 50), theirs._documents(sizes.TINY, 2, 50)
    inside = batch["segment_ids"] > 0
    assert (np.concatenate([each["input_ids"] for each in documents]) == batch["tokens"][inside]).all()
    labels = np.concatenate([each["labels"] for each in documents])
    assert ((labels != -100) == (batch["loss_weights"][inside] == 1)).all()
    assert len(documents) == batch["segment_ids"].max(axis=1).sum()


@pytest.mark.slow
def test_a_profile_names_its_file_and_what_took_longest(tmp_path):
    found = training.profile(sizes.TINY, "micro", "plain", 1, str(tmp_path))["text"]
    assert found.startswith(str(tmp_path)) and ".xplane.pb, " in found and found.count(" ms") == 3


def missing() -> dict:
    raise ModuleNotFoundError("No module named 'trl'", name="trl")


def test_a_line_whose_package_is_missing_is_named_as_skipped():
    assert alone.alone(missing, time.monotonic() + 60) == "skipped: trl is not installed"


@pytest.mark.slow
def test_trl_runs_at_a_tiny_size():
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    pytest.importorskip("peft")
    for rank in (0, 2):
        found = theirs.trl_training(sizes.TINY, "micro", False, 2, rank)
        assert found["tokens"] > 0 and "its loss in chunks" in found["note"]


def limits(card: str, gib: float) -> dict:
    return {"card": card, "memory": gib * 2**30, "flops": 7e14, "bandwidth": 3e12}


def printed(monkeypatch, capsys, can: dict, *arguments: str) -> list[str]:
    """What main prints where each line gives 1,000 tokens/s."""
    ran = iter([can])

    def alone(measure, until):
        return next(ran, {"tokens": 1000.0})

    monkeypatch.setattr(table, "alone", alone)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")  # main sets it for the processes behind it
    monkeypatch.setattr("sys.argv", ["gpu", *arguments])
    table.main()
    return capsys.readouterr().out.splitlines()


def test_it_stops_where_there_is_no_gpu(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="jax finds no GPU here, but cpu; --tiny runs all of this on a CPU"):
        printed(monkeypatch, capsys, limits("cpu", 10))


@pytest.mark.parametrize(
    ("card", "gib", "decode", "trains", "moments"),
    [
        ("NVIDIA H100 80GB HBM3", 74.8, "130–180", "7,000–9,500", "needs 79 GiB of 75"),
        ("NVIDIA H200", 132, "190–260", "7,000–9,500", "1,000"),
        ("NVIDIA A100-SXM4-80GB", 75, "1,000", "1,000", "needs 79 GiB of 75"),
    ],
)
def test_cards_are_told_apart(monkeypatch, capsys, card, gib, decode, trains, moments):
    lines = printed(monkeypatch, capsys, limits(card, gib))
    decodes = "7b decode, batch 1 "
    shown = {name: next(line for line in lines if name in line) for name in (decodes, "moments", "4 rows")}
    assert decode in shown[decodes] and trains in shown["4 rows"] and moments in shown["moments"]
    assert ("–" in shown["4 rows"]) == ("H" in card.split()[1])
    order = [
        i
        for name in ("1b float32", "7b bfloat16", "7b decode", "transformers 7b")
        for i, line in enumerate(lines)
        if name in line
    ]
    assert order[0] < lines.index(shown["4 rows"]) < lines.index(shown[decodes])
