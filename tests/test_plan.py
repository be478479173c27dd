"""The planner: operations by hand, collectives of known programs, and the TPU compiler itself."""

import json
import os
import re

import jax
import numpy as np
import pytest
from conftest import SMALL, call, run
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import families, table
from sftmix_jax.models.architecture import Lora
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import fsdp, sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.planning import aot, chips, collectives, flops, roofline
from sftmix_jax.planning.aot import Compiled, Topology
from sftmix_jax.planning.compiler import Compiler
from sftmix_jax.planning.planner import Planner
from sftmix_jax.planning.roofline import Choice
from sftmix_jax.training.optimizer import OptimizerConfig


def test_operations_of_a_token_by_hand():
    """SMALL: V 61, D 32, F 48, L 2, N 4, K 2, H 8."""
    layer = 32 * 8 * (4 + 2 + 2) + 4 * 8 * 32 + 3 * 32 * 48
    assert table.matmul_params(SMALL) == 2 * layer + 61 * 32
    attention = 2 * (2 * 4 * 8 * 100 / 2) * 2  # scores and values, half of 100 tokens, two layers
    assert flops.forward_per_token(SMALL, 100) == 2 * (2 * layer + 61 * 32) + attention
    seven = families.preset("7b")
    assert flops.training_per_token(seven, 0) == pytest.approx(6 * 6.6e9, rel=0.01)


PROGRAM = """HloModule jit_step, num_partitions=8

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %p = (s32[], f32[8,4]) parameter(0)
  %bound = s32[] constant(5)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %gathered = bf16[8,16]{1,0} all-gather(%x), dimensions={0}
  %scattered = f32[2,4]{1,0} reduce-scatter(%y), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %iota = f32[2,4]{1,0} reduce-scatter(%y), replica_groups=[2,4]<=[8], dimensions={0}
  %named = f32[2,4]{1,0} reduce-scatter(%y), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
  %sent = (bf16[2,4]{1,0}, u32[], token[]) send(%y, %token), channel_id=4, is_host_transfer=true
}

%all-reduce-scatter.1 (p: f32[8,4]) -> f32[2,4] {
  %whole = f32[8,4]{1,0} all-reduce(%p), replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %cut = f32[2,4]{1,0} dynamic-slice(%whole, %i, %zero), dynamic_slice_sizes={2,4}
}

%windowed_dot_general_body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %up = f32[2,4]{1,0} collective-permute(%x), source_target_pairs={{0,1}}
  %down = f32[2,4]{1,0} collective-permute(%y), source_target_pairs={{1,0}}
  %up.2 = f32[2,4]{1,0} collective-permute(%x), source_target_pairs={{0,1}}
  %down.2 = f32[2,4]{1,0} collective-permute(%y), source_target_pairs={{1,0}}
}

%four (p: (s32[], f32[8,4])) -> pred[] {
  %bound = s32[] constant(4)
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %scatter = f32[2,4]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
  %unrolled = (s32[], f32[8,4]) while(%init), condition=%four, body=%windowed_dot_general_body
  %sum = f32[10]{0} all-reduce(%a), to_apply=%add
  %loop = (s32[], f32[8,4]) while(%init), condition=%condition, body=%body
  %known = (s32[], f32[8,4]) while(%init), condition=%other, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_collectives_in_loops_count_as_often_as_they_run():
    """And each device receives what the others of its group have: 7/8 of what eight make whole, 3/4 of what four do.

    A scatter that is written as a sum and a cut counts as one; a loop that is unrolled twice runs half as often.
    """
    found = collectives.bytes_sent(PROGRAM)
    assert found == {
        "all-gather": 8 * (8 * 16 * 2) * 7 / 8,
        "reduce-scatter": (8 * 3 + 1) * (8 * 4 * 4) * 3 / 4,
        "all-reduce": 2 * 40 * 7 / 8,
        "collective-permute": 2 * 4 * (2 * 4 * 4),
        "between slices": 8 * (2 * 4 * 2 + 4),
    }


def test_fsdp_needs_every_parameter_twice_and_every_gradient_once():
    assert collectives.needed_by_fsdp(100, 80, 4, 2, 4) == 0.75 * (100 * 2 + 80 * 2 + 100 * 4)


SEVEN = families.preset("7b")


def test_the_roofline_of_a_step_by_hand():
    """7B, 16 rows of 2048 on 16 v5e, fully sharded, full remat: each limit from the definitions alone."""
    found = roofline.estimate(Tuning(SEVEN), chips.find_chip("v5e"), Choice(1, 16, 1, 1, "full"), 16, 2048)
    tokens = 2048  # of a chip
    assert found.compute == pytest.approx(tokens * 4 * flops.forward_per_token(SEVEN, 2048) / 197e12)
    assert found.links == pytest.approx(3 * 15 / 16 * 2 * table.num_params(SEVEN) / 200e9)
    assert found.waiting == 0 and found.bound == "compute" and found.seconds == found.compute
    weights, update = 4 * 2 * table.num_params(SEVEN), table.num_params(SEVEN) / 16 * 32
    assert found.memory > (weights + update) / 0.819e12
    assert found.needed > table.num_params(SEVEN) / 16 * 18
    tensor = roofline.estimate(Tuning(SEVEN), chips.find_chip("v5e"), Choice(1, 8, 2, 1, "none"), 16, 2048)
    assert tensor.waiting == pytest.approx(4 * 2 * 0.5 * 2 * 2048 * 2 * 32 * 4096 / 200e9)  # 4 sums a layer, both ways


def test_every_layout_divides_what_it_splits():
    found = list(roofline.choices(families.preset("llama3-8b"), 32, 48))  # 8 key/value heads
    assert found and len(set(found)) == len(found)
    for choice in found:
        assert choice.devices == 32 and 8 % choice.tensor == 0
        assert 48 % (choice.data * choice.fsdp * choice.grad_accum_steps) == 0
    eight, card = families.preset("qwen3-8b"), chips.find_chip("rtx4090")
    assert not roofline.promising(Tuning(eight), card, 1, 2, 2048)
    lora = Lora(16, 16.0, tuple(table.LINEAR))
    needed = {}
    for dtype in ("bfloat16", "int8", "nf4"):
        fitting = roofline.promising(Tuning(eight, lora, frozen_dtype=dtype), card, 1, 2, 2048)
        needed[dtype] = min(estimate.needed for _, estimate in fitting)
    count = table.num_params(eight)
    assert needed["bfloat16"] - needed["int8"] == count and needed["int8"] - needed["nf4"] == count * 7 / 16
    ranked = roofline.promising(Tuning(SEVEN), chips.find_chip("v5e"), 16, 64, 2048)
    assert [e.seconds for _, e in ranked] == sorted(e.seconds for _, e in ranked)
    assert all(e.needed <= 1.2 * chips.usable(chips.find_chip("v5e")) for _, e in ranked)


def search_where(monkeypatch, fits, devices=16):
    """A search whose compiler is `fits(mesh, remat, grad_accum_steps)`. → what it took, and compiled."""
    compiled = []

    def step(self, setting, stage, grad_accum_steps):
        compiled.append((dict(setting.mesh), setting.compute.remat, grad_accum_steps))
        return Compiled(fits(*compiled[-1]), 2**30, 2**30, 2**34, {}, 0.0)

    monkeypatch.setattr(Planner, "_step", step)
    monkeypatch.setattr(experiment, "make_mesh", lambda config, architecture, devices: vars(config.mesh))
    topology = Topology("v5e:4x4", "v5e", chips.find_chip("v5e"), tuple(range(devices)), 1)
    config = experiment.read(["--config", "dmt.py:7b"])
    return Planner(topology).search(config), compiled


def test_a_search_takes_the_fastest_looking_layout_that_fits(monkeypatch, capsys):
    answers = iter([False, False, True])
    taken, compiled = search_where(monkeypatch, lambda *_: next(answers))
    mesh, remat, parts = compiled[-1]
    assert len(compiled) == 3 and len(set(map(str, compiled))) == 3
    assert vars(taken.mesh) == mesh and taken.model.compute.remat == remat
    assert taken.stages["general"].batch.grad_accum_steps == parts  # the larger stage was searched for
    said = capsys.readouterr().err.splitlines()
    assert [line.endswith("does not fit") for line in said] == [True, True, False]
    assert f"--config.mesh.fsdp={mesh['fsdp']}" in said[-1] and f"remat={remat}" in said[-1]


def test_a_search_takes_no_mesh_that_another_stage_cannot_divide(monkeypatch):
    """16 rows in the specialised stage, 64 in the general one, which is searched for: on 64 chips 16 parts at most."""
    answers = iter([False] * 5 + [True])
    _, compiled = search_where(monkeypatch, lambda *_: next(answers), devices=64)
    assert len(compiled) == 6 and all(16 % (mesh["data"] * mesh["fsdp"]) == 0 for mesh, _, _ in compiled)


def test_a_search_that_finds_nothing_says_so(monkeypatch):
    with pytest.raises(UserError, match=r"v5e:4x4: nothing that was tried fits stage 'general'.*more or larger chips"):
        search_where(monkeypatch, lambda *_: False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--topology v5x:4x4", "did you mean 'v5e:4x4'"),
        ("--topology v5e", "did you mean 'v5e:"),
        ("--topology h200:8 --num_slices 2", "name all GPUs at once (h200:16)"),
        ("--topology h200:8 --num_slices x", "--num_slices: 'x'; must be a whole number"),
        ("--topology h200:8 --num_slices 0", "--num_slices: 0; must be at least 1"),
        ("--topology h200:8 --utilisation 40", "above 0 and at most 1"),
    ],
)
def test_machines_that_are_none_are_explained(arguments, said):
    found = call("plan", "--config", "dmt.py:7b", *arguments.split())
    assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr


def test_a_plan_without_a_machine_asks_for_one():
    found = run("sftmix_jax.plan", "--config", "dmt.py:7b")
    assert found.returncode == 2 and "name the machine" in found.stderr and "Traceback" not in found.stderr


def needs_compiler():
    pytest.importorskip("libtpu")


def compile_with_resharding(topology: Topology) -> Compiled:
    """A program that splits an array three ways and wants it, reshaped, split another way."""
    mesh = jax.sharding.Mesh(np.array(topology.devices).reshape(2, 2, 4), ("a", "b", "c"))

    def reshard(x: jax.Array) -> jax.Array:
        x = jax.lax.with_sharding_constraint(x * 2, NamedSharding(mesh, P("a", "b", "c")))
        return jax.lax.with_sharding_constraint(x.reshape(-1, 64) + 1, NamedSharding(mesh, P(("c", "a"), "b")))

    array = jax.ShapeDtypeStruct((64, 64, 64), np.float32, sharding=NamedSharding(mesh, P("a")))
    jax.jit(reshard).lower(array).compile()
    return Compiled(True, 1, 1, 1, {}, 0.0)


def compile_and_end(topology: Topology) -> Compiled:
    os.write(2, b"F1125 14:43:51 26038 emitter.cc:1889] Check failed: *count != 1 (1 vs. 1)\n*** stack trace: ***\n")
    os.abort()


def compile_badly(topology: Topology) -> Compiled:
    raise UserError("52 heads cannot be divided among 8 devices")


def test_the_compilers_complaints_of_resharding_are_heard():
    needs_compiler()
    found = Compiler(aot.find_topology("v5e:4x4"))(compile_with_resharding)
    assert found.fits and len(found.complaints) == 1
    assert re.match(r"jit\(reshard\)/\w+, from \{devices=.* to \{devices=", found.complaints[0])


def test_a_compiler_that_ends_its_process_leaves_a_plan():
    """What it said is the plan's message, and the next program is compiled in a new process."""
    needs_compiler()
    compiler = Compiler(aot.find_topology("v5e:4x4"))
    ended = compiler(compile_and_end)
    assert not ended.fits and ended.message == "the compiler itself failed: Check failed: *count != 1 (1 vs. 1)"
    assert ended.limit == int(chips.usable(chips.find_chip("v5e")))
    with pytest.raises(UserError, match="52 heads"):
        compiler(compile_badly)
    assert compiler(compile_with_resharding).fits


@pytest.mark.slow
def test_7b_compiles_and_fits_on_sixteen_v5e():
    needs_compiler()
    found = run("sftmix_jax.plan", "--config", "dmt.py:7b", "--topology", "v5e:4x4", "--json", timeout=900)
    assert found.returncode == 0, found.stderr
    specialised, general = json.loads(found.stdout)
    state = 12 * table.num_params(families.preset("7b")) / 16  # float32 parameters and two moments, split over 16
    assert specialised["fits"]
    assert specialised["parameters"] == pytest.approx(state / 3, rel=0.01)
    assert specialised["parameters"] + specialised["optimizer"] == pytest.approx(state, rel=0.01)
    assert specialised["complaints"] == general["complaints"] == []
    sampled = {name: size / 2**30 for name, size in general["programs"].items()}
    assert list(sampled) == ["validation loss", "prefill", "decode"] and max(sampled.values()) < 8
    assert general["rows"] == 64 and general["temporaries"] > specialised["temporaries"]
    needed = collectives.needed_by_fsdp(table.num_params(families.preset("7b")), 6.48e9, 16, 2, 2)
    assert needed < sum(specialised["collectives"].values()) < 1.1 * needed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "topology", "slices", "rows", "fits"),
    [
        ("7b", "v5p:2x2x2", 1, 16, True),
        ("7b", "v6e:4x4", 1, 16, True),
        ("7b", "v5e:4x4", 2, 32, True),
        ("7b", "tpu7x:2x2x1", 1, 16, True),
        ("33b", "v5e:16x16", 1, 256, True),
        ("65b", "v6e:2x4", 1, 8, False),
    ],
)
def test_the_step_compiles_for(model, topology, slices, rows, fits):
    """State as counted, and little more sent than fully sharded data parallelism needs.

    Of two slices each scatters within itself, and only what a device keeps goes to the other.
    """
    needs_compiler()
    config, described = families.preset(model), aot.find_topology(topology, slices)
    compiled = aot.compile_step(
        Tuning(config),
        Compute("bfloat16", "full", "splash"),
        OptimizerConfig(),
        MeshConfig(),
        described,
        rows=rows,
        length=2048,
        domains=3,
        grad_accum_steps=1,
    )
    assert compiled.fits == fits, compiled.message
    if not fits:
        assert compiled.message and compiled.total > compiled.limit
        return
    shards = len(described.devices) // slices
    state = 12 * table.num_params(config) / shards
    assert state <= compiled.arguments < 1.1 * state  # 33B's rows of 26 are padded to 32
    needed = collectives.needed_by_fsdp(table.num_params(config), table.num_params(config), shards, 2, 2)
    between = compiled.collectives.pop(collectives.BETWEEN_SLICES, 0)
    # the embedding's gradient is float32
    assert between == pytest.approx(2 * table.num_params(config) / shards * (slices - 1), rel=0.1)
    assert 0.9 * needed < sum(compiled.collectives.values()) < 1.1 * needed


@pytest.mark.slow
def test_33b_does_not_fit_on_eight_v5e_and_says_so():
    needs_compiler()
    found = run("sftmix_jax.plan", "--config", "dmt.py:33b", "--topology", "v5e:2x4", timeout=900)
    assert found.returncode == 1, found.stderr
    assert "does not fit" in found.stdout and "Take more or larger chips" in " ".join(found.stdout.split())


@pytest.mark.parametrize(
    ("topology", "sides"),
    [
        ("v5e:16x16", [16, 16]),
        ("v5p:4x4x8", [4, 4, 8]),
        ("v4:2x2x4", [2, 2, 4]),
        ("tpu7x:4x4x4", [4, 4, 4, 2]),
        ("v5e:4x4", [16]),
    ],
)
def test_the_box_that_chips_stand_in(topology, sides):
    """Both cores of a v4 chip are one device; 4x4 is walked as a ring."""
    needs_compiler()
    assert fsdp.box(sharding.make_mesh(MeshConfig(), aot.find_topology(topology).devices)) == sides


def test_bad_batches_are_named():
    needs_compiler()
    found = call("plan", "--config", "dmt.py:7b", "--topology", "v5e:16x16")
    assert found.returncode == 2 and "set batch.batch_size to a multiple of 256" in found.stderr


def test_devices_of_this_machine_stand_for_gpus():
    """The state as counted, split over as many devices; a shape that is none is an error."""
    described = aot.find_topology("h200:4")
    compiled = aot.compile_step(
        Tuning(SMALL),
        Compute("float32", "none", "mosaic"),
        OptimizerConfig(),
        MeshConfig(),
        described,
        rows=8,
        length=128,
        domains=2,
        grad_accum_steps=1,
    )
    norms = 5 * SMALL.hidden_size  # are not split
    state, batch = 12 * ((table.num_params(SMALL) - norms) / 4 + norms), 6 * 4 * 8 * 128 / 4
    assert compiled.fits and compiled.arguments == pytest.approx(state + batch, rel=0.01)
    with pytest.raises(UserError, match="topology 'h100:8x8': did you mean 'h100:8'"):
        aot.find_topology("h100:8x8")


BYTES = {"float32": (12, 4, 0), "bfloat16_moments": (8, 2, 2), "bfloat16": (6, 2, 0)}  # state, gradients, cast weights


@pytest.fixture
def uncompiled(monkeypatch):
    """Nothing is compiled: what a program holds is counted, and its temporaries are those of no machine."""

    def compiled(topology, function, *arguments, resident=0, **_):
        return Compiled(True, aot._bytes(arguments) + resident, 10**15, topology.limit, {}, 0.0)

    monkeypatch.setattr(aot, "_compile", compiled)


@pytest.mark.parametrize("state", list(BYTES))
@pytest.mark.parametrize(("model", "layer"), [("7b", 202_383_360), ("llama3-8b", 218_112_000)])
@pytest.mark.parametrize(
    ("topology", "gib"), [("h100:1", 71.7), ("h200:1", 126.4), ("h100:8", 71.7), ("rtx4090:1", 21.6), ("b200:1", 161.2)]
)
def test_a_gpu_s_memory_is_what_arithmetic_gives(uncompiled, topology, gib, model, layer, state):
    """A row of 2,048 tokens on each GPU, full remat: within 10 % of a sum by hand."""
    config, described = families.preset(model), aot.find_topology(topology)
    n = len(described.devices)
    found = aot.compile_step(
        Tuning(config),
        Compute("bfloat16", "full", "mosaic"),
        OptimizerConfig(state=state),
        MeshConfig(),
        described,
        rows=n,
        length=2048,
        domains=3,
        grad_accum_steps=1,
    )
    layer_inputs = 2048 * 32 * 4096 * 2
    whole_layers = 3 * layer * 2 if n > 1 else layer * 2
    head = 4096 * config.vocab_size * (2 + 4) + 2.5 * min(256 * 2**20, 2048 * config.vocab_size * 4)
    a_layer = 2048 * 2 * (14 * 4096 + 2 * (32 + 2 * config.num_kv_heads) * 128 + 4 * config.intermediate_size)
    wanted = sum(BYTES[state]) * table.num_params(config) / n + layer_inputs + whole_layers + head + a_layer
    print(f"{model} {state} {topology}: {found.total / 2**30:.1f} GiB, by hand {wanted / 2**30:.1f}")
    assert found.total == pytest.approx(wanted, rel=0.1)
    assert found.limit / 2**30 == pytest.approx(gib, abs=0.1)
    assert found.fits == (wanted < found.limit) and bool(found.message) != found.fits
    if not found.fits:
        assert found.message.startswith(f"needs {found.total / 2**30:.1f} GiB of {gib}") and "of state" in found.message


def test_a_gpu_s_memory_with_adapters_is_what_arithmetic_gives(uncompiled):
    """LLaMA 3 8B with adapters of rank 16, a row of 2,048 tokens on one H100: frozen weights take two bytes."""
    config, rows = families.preset("llama3-8b"), 1
    how = Tuning(config, Lora(16, 16.0, tuple(table.LINEAR)), frozen_dtype="bfloat16")
    found = aot.compile_step(
        how,
        Compute("bfloat16", "full", "mosaic"),
        OptimizerConfig(),
        MeshConfig(),
        aot.find_topology("h100:1"),
        rows=rows,
        length=2048,
        domains=3,
        grad_accum_steps=1,
    )
    sides = [4096 + 4096, 4096 + 1024, 4096 + 1024, 4096 + 4096, *3 * [4096 + 14_336]]  # q, k, v, o, gate, up, down
    adapters = 16 * 32 * sum(sides)
    assert how.num_trained() == adapters == 41_943_040
    layer_inputs = 2048 * 32 * 4096 * 2
    head = 4096 * config.vocab_size * 2 + 2.5 * min(256 * 2**20, 2048 * config.vocab_size * 4)
    a_layer = 2048 * 2 * (14 * 4096 + 2 * (32 + 2 * config.num_kv_heads) * 128 + 4 * config.intermediate_size)
    wanted = 2 * table.num_params(config) + 16 * adapters + layer_inputs + head + a_layer
    assert found.total == pytest.approx(wanted, rel=0.05) and found.fits
    assert found.parameters == pytest.approx(2 * table.num_params(config) + 4 * adapters, rel=1e-3)


def test_a_frozen_weight_has_two_of_three_products():
    how = Tuning(SEVEN, Lora(8, 8.0, ("q",)))
    adapters = 32 * 8 * (4096 + 4096)
    assert how.num_trained(multiplied=True) == adapters
    wanted = 4 * table.matmul_params(SEVEN) + 6 * adapters
    found = flops.training_per_token(how.architecture, 0, adapters)
    assert found == pytest.approx(wanted, rel=1e-6)
    assert Tuning(SEVEN, names=("layers.0-15",)).num_trained(multiplied=True) == 16 * 202_375_168


def test_what_a_gpu_needs_falls_with_the_bytes_of_its_state_and_grows_with_rows(uncompiled):
    def total(state="float32", rows=4, grad_accum_steps=1, remat="full", topology="h200:1"):
        return aot.compile_step(
            Tuning(SEVEN),
            Compute("bfloat16", remat, "mosaic"),
            OptimizerConfig(state=state),
            MeshConfig(),
            aot.find_topology(topology),
            rows=rows,
            length=2048,
            domains=3,
            grad_accum_steps=grad_accum_steps,
        ).total

    assert total("bfloat16") < total("bfloat16_moments") < total("float32")
    assert total(rows=8) - total(rows=4) > 4 * 2048 * 32 * 4096 * 2  # what enters each layer
    assert total(remat="offload") < total(remat="full") < total(remat="dots") < total(remat="none")
    second = total(grad_accum_steps=4) - total(grad_accum_steps=1)  # another set of gradients
    assert second > 3 * table.num_params(SEVEN)


def test_sampling_on_a_gpu_is_planned_at_its_worst_span(uncompiled):
    """32 slots of 2,048 tokens of 7B: 32 GiB of cache, and beside it a copy of the 1,536 places in front."""
    described, compute = aot.find_topology("h200:1"), Compute("bfloat16", "none")
    weights, cache = 2 * table.num_params(SEVEN), 2 * 32 * 32 * 32 * 128 * 2048 * 2
    decode = aot.compile_decode(SEVEN, compute, described, slots=32)
    assert decode.total == pytest.approx(weights + 1.75 * cache, rel=0.02)
    prefill = aot.compile_prefill(SEVEN, compute, described, slots=32)
    assert prefill.total > weights + 2 * cache
    small = aot.compile_prefill(SEVEN, compute, aot.find_topology("h100:1"), slots=32)
    assert not small.fits and "of keys and values" in small.message
    spread = aot.compile_decode(SEVEN, compute, aot.find_topology("h100:8"), slots=32)
    assert spread.total == pytest.approx((weights + 1.75 * cache) / 8, rel=0.03) and spread.fits


def test_decoding_on_a_tpu_is_planned_at_its_worst_span(monkeypatch):
    """The span before the full length, if that takes more."""
    needs_compiler()
    spans = []

    def compiled(topology, function, *arguments, span, **_):
        spans.append(span)
        return Compiled(True, 1, 3 if span == 64 else 2, 10, {}, 0.0)

    monkeypatch.setattr(aot, "_compile", compiled)
    found = aot.compile_decode(SMALL, Compute("bfloat16", "none"), aot.find_topology("v5e:2x4"), slots=8)
    assert spans == [128, 64] and found.total == 4
