"""Model folders are data: their code never runs, the right files are read, and what is damaged is named."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, SMALL, random_model, save_model
from etils import epath
from safetensors.numpy import load_file, save_file

from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.opening import Opening, open_model
from sftmix_jax.experiment.stages import TINY, find_base
from sftmix_jax.machine import model_folder
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import hf_config, huggingface
from sftmix_jax.models.tensors import Folder

CODE = "import os, pathlib\npathlib.Path(os.environ['MARKER']).touch()\n"
# what a folder's configs can say to have its code run: file, fields
HOOKS = {
    "tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}}),
    "tokenizer, as a list": ("tokenizer_config.json", {"auto_map": ["own.OwnTokenizer", None]}),
    "tokenizer of an unknown class": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}, "tokenizer_class": "OwnTokenizer"},
    ),
    "config": ("config.json", {"auto_map": {"AutoConfig": "own.OwnConfig"}, "model_type": "own"}),
    "model": ("config.json", {"auto_map": {"AutoModelForCausalLM": "own.OwnModel"}}),
    "code of another repository": ("config.json", {"auto_map": {"AutoConfig": "someone/else--own.OwnConfig"}}),
}


def edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def folder_with_code(folder, hook):
    shutil.copytree(TINY, folder)
    for name in ("own.py", "tokenizer.py", "modeling_llama.py", "configuration_llama.py", "tokenization_llama.py"):
        (folder / name).write_text(CODE)
    file, fields = HOOKS[hook]
    edit(folder / file, **fields)
    return folder


@pytest.mark.parametrize("hook", HOOKS)
def test_a_folder_that_names_code_is_refused_and_its_code_does_not_run(tmp_path, monkeypatch, hook):
    folder = folder_with_code(tmp_path / "model", hook)
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for use in (lambda: find_base(f"hf:{folder}", "", 0), lambda: Tokenizer(str(folder))):
        with pytest.raises(UserError, match=r"auto_map.*never run"):
            use()
    assert not (tmp_path / "marker").exists()


def test_a_tokenizer_without_its_model_names_its_code_too(tmp_path):
    folder = folder_with_code(tmp_path / "model", "tokenizer")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer_config\.json: 'auto_map' names Python code.*own\.OwnTokenizer"):
        Tokenizer(str(folder))


def test_code_that_no_config_names_is_never_looked_at(tmp_path, monkeypatch):
    folder = folder_with_code(tmp_path / "model", "tokenizer")
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    config = json.loads((TINY / "tokenizer_config.json").read_text()) | {"tokenizer_class": "OwnTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer(str(folder)).encode("what is 2 + 2?") == Tokenizer(str(TINY)).encode("what is 2 + 2?")
    assert find_base(f"hf:{folder}", "", 0).fingerprint == find_base("tiny", "", 0).fingerprint
    assert not (tmp_path / "marker").exists()


def verb(*arguments, marker, stdin="y\n" * 20):
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | {"MARKER": str(marker)}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=clean,
        timeout=300,
        text=True,
        input=stdin,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    "verb_and_flags",
    [
        ["sample", "--model={}", "--prompt=hi"],
        pytest.param(
            ["train", "--config=quickstart.py", "--workdir={}-runs", "--config.model.init=hf:{}"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["audit", "--config=quickstart.py", "--config.model.tokenizer={}"], marks=pytest.mark.slow),
    ],
    ids=["sample", "train", "audit"],
)
def test_yes_on_standard_input_runs_no_code(tmp_path, verb_and_flags):
    folder = folder_with_code(tmp_path / "model", "tokenizer of an unknown class")
    name, *flags = verb_and_flags
    said = verb(f"sftmix_jax.{name}", *(flag.format(folder) for flag in flags), marker=tmp_path / "marker")
    assert said.returncode == 2 and "never run" in said.stderr and "Traceback" not in said.stderr, said.stderr
    assert not (tmp_path / "marker").exists()


def test_standard_input_is_empty_but_in_a_chat():
    """A library that asks hears nothing; the chat hears what was typed."""
    script = (
        "import dataclasses, sys; from sftmix_jax.machine import command\n"
        "def asks():\n"
        "    try: print('library', repr(input()))\n"
        "    except EOFError: print('library', 'nothing')\n"
        "def main(options):\n"
        "    asks()\n"
        "    with command.open_stdin(): print('chat', repr(input()))\n"
        "    asks()\n"
        "command.run(main, dataclasses.make_dataclass('Options', []))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        input="hello\ny\n",
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert said.stdout.split("\n")[:3] == ["library nothing", "chat 'hello'", "library nothing"], said.stderr


@pytest.fixture
def single(tmp_path):
    return save_model(tmp_path / "model", SMALL, random_model())


@pytest.fixture
def sharded(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface, "_SHARD_BYTES", 10_000)
    return save_model(tmp_path / "sharded", SMALL, random_model())


def loaded(folder):
    return huggingface.load(epath.Path(folder))[1]["norm"]


def test_only_the_shards_of_the_index_are_read(sharded):
    before, norm = huggingface.fingerprint(sharded), loaded(sharded)
    other = {name: np.zeros_like(array) for name, array in load_file(sharded / Folder(sharded).files[0].name).items()}
    save_file(other, sharded / "model-00001-of-00009.safetensors")
    save_file({"anything": np.zeros(3, np.float32)}, sharded / "zzz.safetensors")
    (sharded / "consolidated.safetensors").write_bytes(b"damaged")
    assert huggingface.fingerprint(sharded) == before
    np.testing.assert_array_equal(loaded(sharded), norm)


def test_a_single_file_wins_over_an_index_and_all_else(single):
    """As in transformers."""
    before = huggingface.fingerprint(single)
    (single / "consolidated.safetensors").write_bytes(b"damaged")
    (single / "model-00001-of-00002.safetensors").write_bytes(b"damaged")
    (single / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": "absent.safetensors"}}')
    assert huggingface.fingerprint(single) == before


@pytest.fixture
def both(sharded):
    """A single file and an index with its shards, which hold the same tensors."""
    shards = [load_file(file) for file in Folder(sharded).files]
    save_file({name: array for shard in shards for name, array in shard.items()}, sharded / "model.safetensors")
    return sharded


def test_a_single_file_beside_shards_that_hold_the_same_is_read_and_said(both, capsys):
    shutil.copy(TINY / "tokenizer.json", both)
    base = find_base(f"hf:{both}", str(TINY), 0)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model.safetensors is read; the files of model.safetensors.index.json" in said
    for file in both.glob("model*"):
        if file.name != "model.safetensors":
            file.unlink()
    assert find_base(f"hf:{both}", str(TINY), 0).fingerprint == base.fingerprint and not capsys.readouterr().err


def test_a_single_file_beside_shards_that_are_not_whole_is_read_and_said(both, capsys):
    next(both.glob("model-*")).unlink()
    find_base(f"hf:{both}", str(TINY), 0)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(r"model\.safetensors is read, .*00001.*this weight file is missing", said)


def other_value(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"][-1, -1] += 1


def other_dtype(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float16)


def other_shape(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].copy()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_value, r"model\.layers\.1\.mlp\.up_proj\.weight has other values in model-0000\d"),
        (
            other_dtype,
            r"model\.norm\.weight is F16 of shape \(32,\) in model\.safetensors, F32 of shape \(32,\) in model-",
        ),
        (other_shape, r"model\.norm\.weight is F32 of shape \(31,\) in model\.safetensors, F32 of shape \(32,\)"),
        (lambda tensors: tensors.pop("lm_head.weight"), r"only model-.* holds lm_head\.weight"),
    ],
)
def test_two_whole_models_that_differ_are_refused(both, change, said):
    tensors = load_file(both / "model.safetensors")
    change(tensors)
    save_file(tensors, both / "model.safetensors")
    for use in (huggingface.fingerprint, huggingface.load):
        with pytest.raises(UserError, match=rf"holds two models.*differ: {said}.*; remove the one") as error:
            use(both)
        assert "\n" not in str(error.value)


def test_an_index_of_the_single_file_alone_is_no_second_model(single):
    index = dict.fromkeys(load_file(single / "model.safetensors"), "model.safetensors")
    (single / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert huggingface.Weights(single).note == ""


def test_transformers_reads_the_same_files(single, sharded):
    torch = pytest.importorskip("torch")
    import transformers

    for folder in (single, sharded):
        other = {name: np.zeros_like(array) for name, array in load_file(single / "model.safetensors").items()}
        save_file(other, folder / "consolidated.safetensors")
        theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        np.testing.assert_array_equal(theirs.model.norm.weight.detach().numpy(), loaded(folder))


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"model.norm.weight": "absent.safetensors"}, r"absent\.safetensors: this weight file is missing"),
        ({"model.norm.weight": "../model.safetensors"}, r"'\.\./model\.safetensors'; must be a \*\.safetensors file"),
        ({"model.norm.weight": "/etc/x.safetensors"}, "must be a"),
        ({"model.norm.weight": "pytorch_model.bin"}, "must be a"),
        ({"model.norm.weight": 3}, "must be a"),
        ({"model.extra": "FIRST"}, "lacks a tensor that .* lists: model.extra"),
        ({"model.layers.1.mlp.down_proj.weight": "FIRST"}, r"down_proj\.weight; download both again"),
        ([], "weight_map must be an object"),
        ({}, "weight_map must be an object"),
        (None, "weight_map must be an object"),
    ],
)
def test_an_index_that_does_not_fit_is_explained(sharded, weight_map, said):
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())["weight_map"]
    if weight_map:
        weight_map = index | {
            k: index["model.embed_tokens.weight"] if v == "FIRST" else v for k, v in weight_map.items()
        }
    edit(file, weight_map=weight_map)
    with pytest.raises(UserError, match=said):
        huggingface.fingerprint(sharded)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "3", "[" * 100_000])
def test_an_index_that_is_no_json_object_is_named(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json: "):
        huggingface.fingerprint(sharded)


def test_rotary_buffers_may_differ_between_index_and_shards(sharded):
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())["weight_map"]
    edit(file, weight_map=index | {"model.layers.0.self_attn.rotary_emb.inv_freq": index["model.norm.weight"]})
    assert loaded(sharded).shape == (32,)


def test_a_pointer_in_place_of_the_weights_is_named(single):
    (single / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n")
    with pytest.raises(UserError, match=r"model\.safetensors: a Git LFS pointer, .* git lfs pull"):
        huggingface.Weights(epath.Path(single))


def test_architectures_are_a_list(single):
    edit(single / "config.json", architectures="LlamaForCausalLM")
    with pytest.raises(UserError, match=r"config\.json: architectures .*must be a list of names"):
        huggingface.Weights(epath.Path(single))


def test_shards_without_an_index_are_not_guessed(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"has model-0.*, but no model\.safetensors\.index\.json, which names the"):
        huggingface.fingerprint(sharded)


def rewrite_header(file, change):
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    text = change(raw[8 : 8 + length].decode()).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"data_offsets":[0,', '"data_offsets":[4,', 1),
        lambda text: text.replace('"F32"', '"F16"', 1),
        lambda text: text.replace('"F32"', '"F64"', 1),
        lambda text: text.replace('"shape":[', '"shape":[1.0,', 1),
        lambda text: text.replace('"shape":[', '"shape":[true,', 1),
        lambda text: text.replace('"shape":[', '"shape":[18446744073709551616,', 1),
        lambda text: text.replace('"dtype"', '"dtype":"F32","dtype"', 1),
        lambda text: "{}",
        lambda text: "[" + text + "]",
        lambda text: text[:-3],
        lambda text: text.replace('"format"', '"format":1,"x"', 1),
    ],
)
def test_a_header_that_the_safetensors_package_refuses_is_refused(single, change):
    rewrite_header(single / "model.safetensors", change)
    from safetensors import SafetensorError

    with pytest.raises(SafetensorError):
        load_file(single / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable safetensors file"):
        huggingface.fingerprint(single)


def test_a_header_in_another_form_that_the_package_accepts_gives_the_same_weights(single):
    """The package's reading of the header is ours: entries as lists, escaped names, names given twice."""
    before = loaded(single)

    def other_form(text):
        header = json.loads(text)
        entry = header.pop("model.norm.weight")
        listed = json.dumps([entry["dtype"], entry["shape"], entry["data_offsets"]])
        false = json.dumps(header["model.embed_tokens.weight"])
        return json.dumps(header)[:-1] + f', "model.norm.weight": {false}, "model.norm.\\u0077eight": {listed}}}'

    rewrite_header(single / "model.safetensors", other_form)
    np.testing.assert_array_equal(load_file(single / "model.safetensors")["model.norm.weight"], before)
    np.testing.assert_array_equal(loaded(single), before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_weight_that_is_no_number_is_named(single, value, dtype):
    tensors = load_file(single / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].astype(dtype)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, single / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinite"):
        huggingface.load(single)


@pytest.mark.parametrize(
    ("generation", "config", "ids"),
    [
        (None, {"eos_token_id": 2}, (2,)),
        (None, {"eos_token_id": [2, 5, 2]}, (2, 5)),
        (None, {}, ()),
        ({"eos_token_id": 7}, {"eos_token_id": 2}, (7,)),
        ({"eos_token_id": [7, 8]}, {"eos_token_id": 2}, (7, 8)),
        ({}, {"eos_token_id": 2}, ()),
        ({"eos_token_id": None}, {"eos_token_id": 2}, ()),
    ],
)
def test_the_ends_of_a_folder_are_those_of_transformers(tmp_path, generation, config, ids):
    import transformers

    save_model(tmp_path, SMALL, random_model())
    (tmp_path / "generation_config.json").unlink()
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["eos_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(fields | config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert hf_config.read_ends(tmp_path).ids == ids
    if pytest.importorskip("torch"):
        theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id
        assert set(ids) == set([theirs] if isinstance(theirs, int) else theirs or [])


@pytest.mark.parametrize("value", ["2", 2.0, True, -1, [2, None], [[2]], {"a": 2}, 2**70, float("nan")])
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_an_end_that_is_no_token_id_is_named(tmp_path, name, value):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(UserError, match=f"{name}: eos_token_id is .*; must be a token id or a list"):
        hf_config.read_ends(epath.Path(tmp_path))


_SCALED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_theta": 3e4, "rope_type": "default"}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 3e4, "rope_type": "default"}},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}},
        {"rope_theta": 5e5, "rope_scaling": _SCALED},
        {"rope_parameters": {**_SCALED, "rope_theta": 3e4}},
        {"rope_theta": 5e5, "rope_scaling": _SCALED, "rope_parameters": {"rope_theta": 3e4, "rope_type": "default"}},
    ],
)
def test_rotations_are_those_that_transformers_reads(single, rope):
    from transformers import LlamaConfig

    sound = json.loads((single / "config.json").read_text())
    plain = {name: value for name, value in sound.items() if not name.startswith("rope")}
    theirs = LlamaConfig(**copy.deepcopy(rope)).rope_parameters
    ours = hf_config.parse({**plain, **rope}, "config.json")
    rope = ours.pattern[0].rope
    assert (rope.theta, rope.kind) == (theirs["rope_theta"], theirs["rope_type"])
    with pytest.raises(UserError, match=r"config\.json: rope_parameters has full_attention; only one rotation"):
        hf_config.parse({**plain, "rope_parameters": {"full_attention": {"rope_theta": 5e5}}}, "config.json")
    for kind, said in (("granite", "must be one model"), ("mixtral", "supported are exaone4"), (5, "supported are")):
        with pytest.raises(UserError, match=rf"config\.json: model_type is .*; .*{said}"):
            hf_config.parse({**sound, "architectures": ["LlamaForCausalLM"], "model_type": kind}, "config.json")


WRONG = [None, True, -1, 0, 1.5, 10**40, float("nan"), float("inf"), "32", "", [], [1], {}, {"a": 1}]
FIELDS = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rms_norm_eps",
    "tie_word_embeddings",
    "hidden_act",
    "attention_bias",
    "mlp_bias",
    "architectures",
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_wrong_type_is_named_or_means_its_default(single, field):
    sound = json.loads((single / "config.json").read_text())
    for value in WRONG:
        try:
            config = hf_config.parse({**sound, field: value}, "config.json")
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith("config.json: ")
        else:
            assert value in (None, {}, [], "", 0, 1.5, True, {"a": 1}) or field == "max_position_embeddings", (
                field,
                value,
            )
            kinds = (int, float, bool, str, tuple, type(None))
            assert all(type(getattr(config, name)) in kinds for name in config.__annotations__)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass")])
def test_a_config_that_is_no_json_object_is_named(tmp_path, file, text):
    folder = shutil.copytree(TINY, tmp_path / "model")
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"{file}: (not valid JSON|holds )"):
        model_folder.find(str(folder))


@pytest.fixture
def copied(tmp_path):
    """The bundled base: 1536 tokens."""
    return shutil.copytree(TINY, tmp_path / "model")


def opened(folder):
    return open_model(str(folder), Opening(), epath.Path(folder) / "scores")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("field", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_a_token_id_beyond_the_vocabulary_is_named(copied, file, field):
    (copied / "generation_config.json").write_text("{}")
    edit(copied / file, **{field: 1535})
    find_base(f"hf:{copied}", "", 0)
    for value in (1536, 1 << 40, "2", -2):
        edit(copied / file, **{field: value})
        with pytest.raises(UserError) as error:
            find_base(f"hf:{copied}", "", 0)
        assert str(error.value).startswith(f"{copied / file}: {field} is {json.dumps(value)}; must be a token id")
        assert "below 1536" in str(error.value) and "\n" not in str(error.value)


def test_a_padding_token_of_minus_one_is_none(copied):
    """The first LLaMA folders state it."""
    edit(copied / "config.json", pad_token_id=-1)
    assert find_base(f"hf:{copied}", "", 0).ends == find_base("tiny", "", 0).ends


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("field", ["pad_token", "bos_token", "eos_token", "unk_token"])
def test_a_special_token_that_the_model_lacks_is_named(copied, file, field):
    (copied / "special_tokens_map.json").write_text("{}")
    tokenizer = json.loads((copied / "tokenizer_config.json").read_text())
    tokenizer.pop(field, None)
    (copied / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for value in ("<none such>", {"content": "<none such>", "lstrip": False, "__type": "AddedToken"}):
        edit(copied / file, **{field: value})
        with pytest.raises(UserError, match="none of the model's 1536 tokens") as error:
            opened(copied)
        assert str(error.value).startswith(f"{copied / file}: {field} is {json.dumps(value)}")
    edit(copied / file, **{field: "</s>"})
    Tokenizer(str(copied)).check_size(1536, "")


def test_quantised_weights_are_refused_by_name(copied):
    edit(copied / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match=r"config\.json: quantization_config is .*gptq.*only plain float weights"):
        find_base(f"hf:{copied}", "", 0)
    edit(copied / "config.json", quantization_config=None)
    find_base(f"hf:{copied}", "", 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "64"),
        ("rope_scaling", [1]),
        ("vocab_size", None),
        ("vocab_size", {}),
        ("id2label", 4),
        ("rms_norm_eps", "x"),
        ("tie_word_embeddings", "x"),
        ("eos_token_id", "2"),
        ("model_type", ["llama"]),
    ],
)
def test_a_field_that_keeps_the_tokenizer_from_being_read_is_named(copied, field, value):
    edit(copied / "config.json", **{field: value})
    with pytest.raises(UserError) as error:
        Tokenizer(str(copied))
    assert str(error.value).startswith(f"{copied}/config.json: {field} is {json.dumps(value)}, ")
    assert "\n" not in str(error.value)
    edit(copied / "config.json", hidden_act=5, num_hidden_layers="2")
    with pytest.raises(UserError, match=r"/config\.json: several of its fields"):
        Tokenizer(str(copied))


def test_a_tokenizer_at_fault_is_not_blamed_on_a_sound_config(copied):
    edit(copied / "tokenizer_config.json", pad_token=5)
    with pytest.raises(UserError, match=r"its tokenizer cannot be read .*pad_token"):
        Tokenizer(str(copied))
