"""Model folders: what goes in comes out bit by bit, and what does not fit is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import SMALL, random_model, save_model
from safetensors.numpy import load_file, save_file

from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import families, huggingface
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.sampler import abstract_params


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "model", SMALL, random_model())


def edit_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_tensors(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_import_export_import_is_bit_identical(folder, tmp_path):
    config, params = huggingface.load(folder)
    again = save_model(tmp_path / "again", config, params)
    config_again, params_again = huggingface.load(again)
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, params, params_again)
    assert huggingface.fingerprint(folder) == huggingface.fingerprint(again)


def test_stories260k_goes_through_unchanged(shared, tmp_path):
    config, params = huggingface.load(shared / "models" / "stories260k")
    again = save_model(tmp_path / "again", config, params)
    theirs = load_file(shared / "models" / "stories260k" / "model.safetensors")
    ours = load_file(again / "model.safetensors")
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name])


def test_large_models_are_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface, "_SHARD_BYTES", 10_000)
    folder = save_model(tmp_path, SMALL, random_model())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    jax.tree.map(np.testing.assert_array_equal, random_model(), huggingface.load(folder)[1])


def test_a_changed_weight_changes_the_fingerprint(folder):
    before = huggingface.fingerprint(folder)
    edit_tensors(folder, lambda t: t["model.norm.weight"].__setitem__(0, 2.0))
    assert huggingface.fingerprint(folder) != before


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "dynamic"),
    ],
)
def test_what_is_no_plain_llama_is_refused_by_name(folder, fields, named):
    edit_config(folder, **fields)
    with pytest.raises(UserError, match=named):
        huggingface.load(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight is missing"),
        (lambda t: t.update({"model.extra": np.zeros(2, np.float32)}), "model.extra"),
        (lambda t: t.update({"model.norm.weight": np.zeros(31, np.float32)}), r"shape \(31,\), config"),
        (lambda t: t.update({"model.norm.weight": np.zeros(32, np.int32)}), "only float"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, change, named):
    edit_tensors(folder, change)
    with pytest.raises(UserError, match=named):
        huggingface.load(folder)


def test_rotary_buffers_of_old_checkpoints_are_no_surplus(folder):
    edit_tensors(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}))
    assert huggingface.load(folder)[0] == SMALL


def test_a_folder_without_safetensors_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        huggingface.Folder(tmp_path)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="did you mean '13b'"):
        families.preset("13B")


def test_transformers_loads_an_export(folder):
    torch = pytest.importorskip("torch")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 61)


@pytest.mark.parametrize("at_once", [1 << 28, 0], ids=["whole", "layer by layer"])
@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(fsdp=2, tensor=2, data=2)], ids=["fsdp", "all axes"])
def test_a_streamed_import_is_the_model_in_its_shards(tmp_path, monkeypatch, at_once, mesh):
    config = dataclasses.replace(SMALL, vocab_size=64)
    save_model(tmp_path, config, random_model(config))
    monkeypatch.setattr(huggingface, "_AT_ONCE", at_once)
    for dtype in ("float32", "bfloat16"):
        abstract = abstract_params(Setup(config, Compute(dtype, "none"), sharding.make_mesh(mesh)))
        streamed = huggingface.stream(tmp_path, abstract)
        jax.tree.map(lambda x, a: x.sharding == a.sharding or pytest.fail(str(a)), streamed, abstract)
        for mine, theirs in zip(jax.tree.leaves(streamed), jax.tree.leaves(huggingface.load(tmp_path)[1]), strict=True):
            np.testing.assert_array_equal(jax.device_get(mine), theirs.astype(dtype))


def test_only_the_part_that_is_asked_for_is_read(tmp_path, monkeypatch):
    save_model(tmp_path, SMALL, random_model())
    whole = huggingface.load(tmp_path)[1]
    weights, read = huggingface.Weights(tmp_path), []
    plain = huggingface.Folder.read
    monkeypatch.setattr(huggingface.Folder, "read", lambda self, *args: read.append(plain(self, *args)) or read[-1])
    for name, index in {
        "q": (slice(1, 2), slice(8, 16), slice(2, 3), slice(0, 8)),
        "k": (slice(0, 2), slice(0, 32), slice(1, 2), slice(2, 6)),
        "o": (slice(0, 1), slice(1, 3), slice(0, 8), slice(4, 12)),
        "gate": (slice(0, 2), slice(8, 16), slice(12, 48)),
        "down": (slice(1, 2), slice(None), slice(0, 16)),
    }.items():
        read.clear()
        part = weights.read(("layers", name), index)
        np.testing.assert_array_equal(part, whole["layers"][name][index])
        if name != "k":  # a part of a head is read with the whole head
            assert sum(x.size for x in read) == part.size
