"""The planner: operations by hand, collectives of known programs, and the TPU compiler itself."""

import json

import pytest
from conftest import SMALL, run

from sftmix_jax.models import llama
from sftmix_jax.planning import collectives, flops


def test_operations_of_a_token_by_hand():
    """SMALL: V 61, D 32, F 48, L 2, N 4, K 2, H 8."""
    layer = 32 * 8 * (4 + 2 + 2) + 4 * 8 * 32 + 3 * 32 * 48
    assert flops.matmul_params(SMALL) == 2 * layer + 61 * 32
    attention = 2 * (2 * 4 * 8 * 100 / 2) * 2  # scores and values, half of 100 tokens, two layers
    assert flops.forward_per_token(SMALL, 100) == 2 * (2 * layer + 61 * 32) + attention
    seven = llama.preset("7b")
    assert flops.training_per_token(seven, 0) == pytest.approx(6 * 6.6e9, rel=0.01)


PROGRAM = """HloModule jit_step

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %p = (s32[], f32[8,4]) parameter(0)
  %bound = s32[] constant(5)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %gathered = bf16[8,16]{1,0} all-gather(%x), dimensions={0}
  %scattered = f32[2,4]{1,0} reduce-scatter(%y), dimensions={0}
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %sum = f32[10]{0} all-reduce(%a), to_apply=%add
  %loop = (s32[], f32[8,4]) while(%init), condition=%condition, body=%body
  %known = (s32[], f32[8,4]) while(%init), condition=%other, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_collectives_in_loops_count_as_often_as_they_run():
    found = collectives.bytes_sent(PROGRAM)
    assert found == {"all-gather": 8 * (8 * 16 * 2), "reduce-scatter": 8 * (2 * 4 * 4), "all-reduce": 2 * 40}


def test_fsdp_needs_every_parameter_twice_and_every_gradient_once():
    assert collectives.needed_by_fsdp(100, 80, 4, 2, 4) == 0.75 * (100 * 2 + 80 * 2 + 100 * 4)


@pytest.mark.parametrize(
    ("topology", "said"),
    [("v5x:4x4", "did you mean 'v5e:4x4'"), ("v5e", "did you mean 'v5e:"), ("", "name the machine")],
)
def test_unknown_topologies_name_the_nearest(topology, said):
    arguments = ["--topology", topology] if topology else []
    found = run("sftmix_jax.plan", "--config", "dmt.py:7b", *arguments)
    assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr


def needs_compiler():
    pytest.importorskip("libtpu")


@pytest.mark.slow
def test_7b_compiles_and_fits_on_sixteen_v5e():
    needs_compiler()
    found = run("sftmix_jax.plan", "--config", "dmt.py:7b", "--topology", "v5e:4x4", "--json", timeout=900)
    assert found.returncode == 0, found.stderr
    specialised, general = json.loads(found.stdout)
    state = 12 * llama.preset("7b").num_params / 16  # float32 parameters and two moments, split over 16
    assert specialised["fits"] and specialised["arguments"] == pytest.approx(state, rel=0.01)
    assert general["rows"] == 64 and general["temporaries"] > specialised["temporaries"]
    needed = collectives.needed_by_fsdp(llama.preset("7b").num_params, 6.48e9, 16, 2, 2)
    assert needed < sum(specialised["collectives"].values()) < 1.1 * needed


@pytest.mark.slow
def test_33b_does_not_fit_on_eight_v5e_and_says_so():
    needs_compiler()
    found = run("sftmix_jax.plan", "--config", "dmt.py:33b", "--topology", "v5e:2x4", timeout=900)
    assert found.returncode == 1, found.stderr
    assert "does not fit" in found.stdout and "Take more or larger chips" in " ".join(found.stdout.split())


def test_bad_batches_are_named():
    needs_compiler()
    found = run("sftmix_jax.plan", "--config", "dmt.py:7b", "--topology", "v5e:16x16")
    assert found.returncode == 2 and "set batch.rows to a multiple of 256" in found.stderr
