"""An export behaves in transformers, and here by --model, as the stage that it was written from."""

import dataclasses
import errno
import json
import os
import re

import jax
import numpy as np
import pytest
from etils import epath

from sftmix_jax import export
from sftmix_jax.data.chat import TEMPLATES, Chat
from sftmix_jax.data.messages import Message
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import exporting, opening
from sftmix_jax.experiment.opening import Opening, open_model
from sftmix_jax.experiment.stages import TINY, stage_digest
from sftmix_jax.machine import options
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import decoder, hf_config, huggingface
from sftmix_jax.models.compute import ComputeConfig
from sftmix_jax.models.hf_config import Ends
from sftmix_jax.parallel import sharding
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.sampler import Request, Sampler, abstract_params

DATED = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }} on {{ strftime_now('%d %b %Y') }}>\n{{ m.content }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}"
    "<assistant on {{ strftime_now('%d %b %Y') }}>\n{% endif %}"
)
LONG_END = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %} [the end]{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
JINJA = {"dated.jinja": DATED, "long_end.jinja": LONG_END}
WORDS = "What is 12 plus 30?"


@pytest.fixture(scope="module")
def tiny():
    """The bundled base with an output matrix of its own, so that a test can change it alone."""
    config, params = huggingface.load(epath.Path(TINY))
    params = dict(params) | {"head": np.array(params["embed"].T)}
    return dataclasses.replace(config, tied=False), params


def a_chat(template, tmp_path):
    if template in JINJA:
        (tmp_path / template).write_text(JINJA[template])
        template = str(tmp_path / template)
    return Chat(template, Tokenizer(str(TINY)))


def a_sampler(config, params, chat, ends):
    """As a stage is opened: the weights that were trained, the chat template's stops, and the base's."""
    compute = ComputeConfig("float32", "none", "plain").resolved(config, "cpu")
    setup = Setup(config, compute, sharding.make_mesh(sharding.MeshConfig()))
    placed, ends = sharding.put_tree(params, abstract_params(setup)), ends.behind(*chat.stops())
    return Sampler(setup, placed, chat.tokenizer, stop_ids=ends.ids, stop_strings=ends.strings, slots=8)


def ending(config, params, chat, length):
    """Parameters whose greedy answer ends with the template's own end of turn, after some of `length` tokens.

    The end of turn gets the logits of a token of the answer, and a little more.
    """
    prompt = chat.prompt([Message("user", WORDS)])
    head, stops = np.array(params["head"]), chat.stops()[0]
    head[:, stops] = 0
    free = a_sampler(config, params | {"head": head}, chat, Ends()).generate([Request(tuple(prompt), length)])[0]
    head[:, stops[-1]] = 1.01 * head[:, free.tokens[length // 2]]
    return params | {"head": head}


@pytest.mark.parametrize("template", [*TEMPLATES, *JINJA])
def test_an_export_gives_our_prompts_texts_stops_and_scores(tmp_path, tiny, template):
    torch = pytest.importorskip("torch")
    import transformers

    config, params = tiny
    chat, ends = a_chat(template, tmp_path), Ends((3, 2))
    params = ending(config, params, chat, 12)
    ours = a_sampler(config, params, chat, ends)
    out = epath.Path(tmp_path / "out")
    exporting.write(out, config, params, chat, ends, origin={"stage": "test"})

    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    conversations = [
        [Message("user", WORDS)],
        [
            Message("system", "Be short."),
            Message("user", "Say apple."),
            Message("assistant", "apple"),
            Message("user", "Write a function that adds one."),
        ],
    ]
    requests = [Request(tuple(chat.prompt(messages)), 24) for messages in conversations]
    answers = ours.generate(requests)
    assert any(answer.finish_reason == "stop" for answer in answers)
    for messages, request, answer in zip(conversations, requests, answers, strict=True):
        rows = [{"role": m.role, "content": m.content} for m in messages]
        prompt = tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
        assert tuple(prompt) == request.tokens
        told = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
            tokenizer=tokenizer,
        )[0, len(prompt) :].tolist()
        stopped = told[-1] in model.generation_config.eos_token_id
        assert (told[:-1] if stopped else told) == list(answer.tokens)
        assert stopped == (answer.finish_reason == "stop")
        assert tokenizer.decode(told, skip_special_tokens=True) == answer.text

    again = open_model(str(out), Opening(dtype="float32", slots=8), epath.Path(tmp_path / "scores"))
    assert again.sampler.stops == ours.stops and again.chat.source == chat.source
    assert [tuple(again.chat.prompt(messages)) for messages in conversations] == [r.tokens for r in requests]
    assert again.chat.tokenizer.encode_plain(WORDS) == chat.tokenizer.encode_plain(WORDS)
    assert again.sampler.generate(requests) == answers
    pairs = [chat.answer([Message("user", WORDS)], "It is 42."), (chat.tokenizer.encode_plain("a b"), [5, 6, 7])]
    assert pairs[0] == again.chat.answer([Message("user", WORDS)], "It is 42.")
    assert again.sampler.log_likelihood(pairs) == ours.log_likelihood(pairs)


def test_an_end_that_is_no_single_token_stops_transformers_with_a_tokenizer(tmp_path, tiny):
    torch = pytest.importorskip("torch")
    import transformers

    config, params = tiny
    params = params | {"head": params["head"].copy()}
    chat = a_chat("vicuna_v1.1", tmp_path)
    prompt = chat.prompt([Message("user", WORDS)])
    params["head"][:, chat.stops()[0]] = 0
    free = a_sampler(config, params, chat, Ends()).generate([Request(tuple(prompt), 24)])[0]
    ends = Ends((), (free.text[6:12],))
    out = epath.Path(tmp_path / "out")
    assert exporting.write(out, config, params, chat, ends, origin={}).strings == ends.strings
    answer = a_sampler(config, params, chat, ends).generate([Request(tuple(prompt), 24)])[0]
    assert answer.finish_reason == "stop" and answer.text == free.text[:6]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    asked = {"inputs": torch.tensor([prompt]), "max_new_tokens": 24, "do_sample": False}
    told = model.generate(**asked, tokenizer=tokenizer)[0, len(prompt) :]
    assert tokenizer.decode(told, skip_special_tokens=True).partition(ends.strings[0])[0] == answer.text
    with pytest.raises(ValueError, match="tokenizer"):
        model.generate(**asked)
    again = open_model(str(out), Opening(dtype="float32"), epath.Path(tmp_path / "scores"))
    assert again.sampler.generate([Request(tuple(prompt), 24)])[0].text == answer.text


@pytest.fixture
def small(tmp_path):
    config = dataclasses.replace(hf_config.read(epath.Path(TINY)), num_layers=1, hidden_size=8, intermediate_size=8)
    compute = ComputeConfig("float32", "none", "plain").resolved(config, "cpu")
    return config, jax.device_get(decoder.init(config, compute, 0)), a_chat("chatml", tmp_path)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_over_an_older_one_leaves_nothing_of_it(tmp_path, small, monkeypatch):
    out = tmp_path / "out"
    exporting.write(epath.Path(tmp_path / "alone"), *small, Ends(), origin={})
    monkeypatch.setattr(huggingface, "_SHARD_BYTES", 10_000)
    exporting.write(epath.Path(out), *small, Ends((5,)), origin={})
    assert (out / "model.safetensors.index.json").exists()
    monkeypatch.undo()
    exporting.write(epath.Path(out), *small, Ends(), origin={})
    assert files(out) == files(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "out"]


def test_weights_beyond_what_float16_holds_are_refused_and_the_older_export_stays(tmp_path, small):
    out, (config, params, chat) = epath.Path(tmp_path / "out"), small
    said = r"model\.norm\.weight holds weights beyond 65504, the largest number of float16"
    exporting.write(out, *small, Ends(), origin={})
    before = files(tmp_path / "out")
    params["norm"] = np.full_like(params["norm"], 70_000)
    with pytest.raises(UserError, match=said):
        exporting.write(out, config, params, chat, Ends(), dtype="float16", origin={})
    assert files(tmp_path / "out") == before
    exporting.write(out, config, params, chat, Ends(), dtype="bfloat16", origin={})


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("cut", ["save_file", "_write"])
def test_an_export_that_fails_leaves_the_older_one_as_it_was(tmp_path, small, monkeypatch, cut, error):
    out = tmp_path / "out"
    exporting.write(epath.Path(out), *small, Ends(), origin={})
    before = files(out)

    def fail(*_):
        raise error

    monkeypatch.setattr(huggingface, cut, fail)
    for target in (out, tmp_path / "new"):
        with pytest.raises(type(error)):
            exporting.write(epath.Path(target), *small, Ends((7,)), origin={})
    assert files(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("name", ["README.md", "thesis.tex", "model.py", "model.bin", "checkpoints/x", ".git/config"])
def test_a_folder_with_other_files_is_not_replaced(tmp_path, small, name):
    for out in (tmp_path / "alien", tmp_path / "exported"):
        if out.name == "exported":
            exporting.write(epath.Path(out), *small, Ends(), origin={})
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
        with pytest.raises(UserError, match=f"holds {name.split('/')[0]}.*not replaced"):
            exporting.write(epath.Path(out), *small, Ends(), origin={})
        assert (out / name).read_text() == "mine"


def test_a_model_that_no_export_wrote_is_not_replaced(tmp_path, small):
    out = epath.Path(tmp_path / "llama")
    exporting.write(out, *small, Ends(), origin={})
    fields = json.loads((out / "config.json").read_text())
    del fields["sftmix_jax"]
    (out / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="no export of this package"):
        exporting.write(out, *small, Ends(), origin={})
    with pytest.raises(UserError, match="is a file"):
        exporting.write(out / "config.json", *small, Ends(), origin={})


def test_what_file_managers_leave_keeps_no_export_from_being_replaced(tmp_path, small):
    out = epath.Path(tmp_path / "out")
    for _ in range(2):
        out.mkdir(exist_ok=True)
        for name in (".DS_Store", "._config.json", "Thumbs.db", "._model.safetensors"):
            (out / name).write_text("x")
        exporting.write(out, *small, Ends(), origin={})
        assert not (out / ".DS_Store").exists()
    wanted = huggingface.Weights(out).fingerprint()
    (out / "._model.safetensors").write_text("x")
    (out / ".DS_Store").write_text("x")
    assert huggingface.Weights(out).fingerprint() == wanted
    (out / ".git").mkdir()
    with pytest.raises(UserError, match=r"holds \.git, which no export wrote"):
        exporting.write(out, *small, Ends(), origin={})


def test_an_export_cut_between_the_renames_is_restored(tmp_path, small):
    out = tmp_path / "out"
    exporting.write(epath.Path(out), *small, Ends(), origin={})
    before = files(out)
    out.rename(tmp_path / ".out.replaced")
    with pytest.raises(ZeroDivisionError), exporting._replaced(epath.Path(out)):
        raise ZeroDivisionError
    assert files(out) == before


def test_an_empty_folder_may_be_exported_to(tmp_path, small):
    out = tmp_path / "out"
    out.mkdir()
    exporting.write(epath.Path(out), *small, Ends((9,)), origin={"stage": "s", "id": "i"})
    config, generation = (json.loads((out / name).read_text()) for name in ("config.json", "generation_config.json"))
    assert config["sftmix_jax"] == {"stage": "s", "id": "i"}
    assert config["eos_token_id"] == generation["eos_token_id"] == [*small[2].stops()[0], 9]
    assert (config["bos_token_id"], generation["bos_token_id"]) == (1, 1)


def call(*arguments):
    """The verb, as a command line calls it."""
    return export.main(options.parse(export.Options, list(map(str, arguments))))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sftmix_jax": {"stage": "gen'])
def test_a_target_with_a_half_written_config_is_refused_with_the_remedy_of_a_target(tmp_path, small, monkeypatch, text):
    out = tmp_path / "out"
    exporting.write(epath.Path(out), *small, Ends(), origin={})
    (out / "config.json").write_text(text)
    before = files(out)
    with pytest.raises(
        UserError, match=r"config\.json: .*; choose another --out, or remove the folder yourself"
    ) as error:
        call(f"--workdir={tmp_path}", f"--out={out}")
    assert "download" not in str(error.value) and files(out) == before


UNWRITABLE = [
    "/proc/x",
    "/proc/self/x/y",
    "/dev/null/x",
    "/sys/x",
    "FILE/x",
    "FILE/x/y",
    "x" * 250,
    "x" * 300,
    "x" * 300 + "/y",
]


@pytest.mark.parametrize("target", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_named_before_weights_are_read(tmp_path, small, monkeypatch, target):
    (tmp_path / "FILE").write_text("mine")
    monkeypatch.setattr(exporting, "one_stage", lambda *_: pytest.fail("went on"))
    monkeypatch.chdir(tmp_path)
    if "/y" not in target or target.startswith(("/", "FILE")):
        with pytest.raises(UserError, match=r"cannot be written \(.*\); choose another --out") as error:
            call(f"--workdir={tmp_path}", f"--out={target}")
        assert str(error.value).startswith(target) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be written"), exporting._explained(epath.Path(target)):
        exporting.write(epath.Path(target), *small, Ends(), origin={})
    assert os.listdir(tmp_path) == ["FILE"]


def test_a_full_disk_is_no_fault_of_the_place():
    for code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(OSError, match="full"), exporting._explained(epath.Path("out")):
            raise OSError(code, "full")


def a_stage(workdir, name, parent="base:0", finished=True):
    """A stage's folder with no more than its records. → its id"""
    record = {"parent": parent, "model": {}, "template": "", "tokenizer": name, "dtype": "float32"}
    record["id"] = stage_digest(record)
    folder = workdir / "stages" / f"{name}-{record['id']}"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"name": name, **record}))
    if finished:
        (folder / "done.json").write_text("{}")
    return record["id"]


def an_experiment(workdir, name, stages):
    (workdir / "experiments").mkdir(exist_ok=True)
    record = {"experiment": {}, "base": "0", "stages": stages}
    (workdir / "experiments" / f"{name}.json").write_text(json.dumps(record))


def chosen(workdir, *wanted):
    return opening.one_stage(epath.Path(workdir), *wanted).name


@pytest.mark.parametrize("started", [True, False])
def test_an_unfinished_last_stage_is_not_passed_over(tmp_path, monkeypatch, started):
    first = a_stage(tmp_path, "special")
    last = a_stage(tmp_path if started else tmp_path / "elsewhere", "general", first, finished=False)
    an_experiment(tmp_path, "dmt", {"special": first, "general": last})
    said = (
        f"general-{last}, the last stage of the experiment 'dmt', is not finished; run its train command again, which "
        f"finishes it, or name a finished stage: --stage=special-{first}"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        call(f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    for name in ("special", first, f"special-{first}"):
        assert chosen(tmp_path, name) == f"special-{first}"
    with pytest.raises(UserError, match="no finished stage 'general'"):
        chosen(tmp_path, "general")


def test_a_finished_last_stage_is_the_one_that_is_meant(tmp_path):
    first = a_stage(tmp_path, "special")
    last = a_stage(tmp_path, "general", first)
    further = a_stage(tmp_path, "zeal", last)
    assert chosen(tmp_path) == f"zeal-{further}", "without experiments, the deepest"
    an_experiment(tmp_path, "dmt", {"special": first, "general": last})
    assert chosen(tmp_path) == f"general-{last}"
    an_experiment(tmp_path, "same", {"special": first, "general": last})
    assert chosen(tmp_path) == f"general-{last}"


def test_a_name_of_several_stages_is_not_decided_by_their_ids(tmp_path):
    first = a_stage(tmp_path, "special")
    ids = [a_stage(tmp_path, "general", parent) for parent in (first, "base:0")]
    names = [f"general-{id}" for id in ids]
    an_experiment(tmp_path, "a", {"special": first, "general": ids[0]})
    an_experiment(tmp_path, "b", {"general": ids[1]})
    for wanted in ([], ["general"]):
        with pytest.raises(UserError, match="which stage") as error:
            chosen(tmp_path, *wanted)
        assert all(name in str(error.value) for name in names)
    assert [chosen(tmp_path, id) for id in ids] == names


def test_a_workdir_without_a_finished_stage_is_named(tmp_path):
    a_stage(tmp_path, "special", finished=False)
    with pytest.raises(UserError, match="no stage in it is finished"):
        chosen(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"experiment": {}, "ba', "null", "[]", '{"experiment": {}, "base": "b", "stages": []}']
)
def test_a_damaged_record_of_an_experiment_names_the_remedies_and_both_work(tmp_path, text):
    first = a_stage(tmp_path, "special")
    an_experiment(tmp_path, "dmt", {"special": first})
    file = tmp_path / "experiments" / "dmt.json"
    whole = file.read_text()
    file.write_text(text)
    with pytest.raises(UserError, match=r"dmt\.json: .*; run its train .*, which writes it anew, or name a stage"):
        chosen(tmp_path)
    assert chosen(tmp_path, "special") == f"special-{first}"
    file.write_text(whole)
    assert chosen(tmp_path) == f"special-{first}"
