"""Model folders: what goes in comes out bit by bit, and what does not fit is named."""

import json

import jax
import numpy as np
import pytest
from conftest import SMALL, random_model, save_model
from safetensors.numpy import load_file, save_file

from sftmix_jax.errors import UserError
from sftmix_jax.models import huggingface, llama


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
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "yarn"),
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
)  # fmt: skip
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
        llama.preset("13B")


def test_transformers_loads_an_export(folder):
    torch = pytest.importorskip("torch")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 61)
