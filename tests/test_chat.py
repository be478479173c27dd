"""Rendering: tokens as transformers gives them, masks as a person would write them."""

import json
import shutil
from pathlib import Path

import pytest

from sftmix_jax.data.chat import TEMPLATES, Chat
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.errors import UserError
from sftmix_jax.stages import TINY

TALK = [
    Message("user", "Say apple."), Message("assistant", "apple"),
    Message("user", "Again."), Message("assistant", "apple!"),
]  # fmt: skip
SYSTEM = [Message("system", "Be short."), *TALK]

LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
    "m.content.strip() + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The tiny base's, which adds nothing around a text."""
    return Tokenizer(str(TINY))


@pytest.fixture(scope="module")
def like_llama(tmp_path_factory) -> Tokenizer:
    """The same tokens, with <s> put before every text, as LLaMA's tokenizers do."""
    return Tokenizer(str(with_tokenizer(tmp_path_factory.mktemp("like_llama"), post_processor=BEGINS)))


BEGINS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


def with_tokenizer(folder: Path, template: str | None = None, **changed) -> Path:
    """A folder with the tiny base's tokenizer, with other entries in tokenizer.json and another chat template."""
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def encode(chat: Chat, messages) -> tuple[list[int], list[bool]]:
    tokens, mask = chat.encode([chat.pieces(messages)])[0]
    return tokens.tolist(), mask.tolist()


def trained_text(chat: Chat, messages) -> list[str]:
    """The runs of trained tokens, as text."""
    tokens, mask = encode(chat, messages)
    runs, before = [], False
    for token, trained in zip(tokens, mask, strict=True):
        if trained and not before:
            runs.append([])
        if trained:
            runs[-1].append(token)
        before = trained
    return [chat.tokenizer.decode_whole(run) for run in runs]


@pytest.mark.parametrize(("name", "jinja"), [("llama-2", LLAMA2), ("llama-3", LLAMA3), ("chatml", CHATML)])
def test_tokens_are_those_of_apply_chat_template(like_llama, tokenizer, name, jinja):
    tokenizer = tokenizer if name == "chatml" else like_llama  # CHATML writes no bos_token
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(TINY))
    theirs.chat_template = jinja
    rows = [{"role": m.role, "content": m.content} for m in TALK]
    wanted = theirs.apply_chat_template(rows, tokenize=True, return_dict=False)
    assert encode(Chat(name, tokenizer), TALK)[0] == wanted
    asked = theirs.apply_chat_template(rows[:1], tokenize=True, add_generation_prompt=True, return_dict=False)
    assert Chat(name, tokenizer).prompt(TALK[:1]) == asked


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("vicuna_v1.1", [" apple</s>", " apple!</s>"]),
        ("alpaca", ["\napple</s>", "\napple!</s>"]),
        ("llama-2", [" apple </s>", " apple! </s>"]),
        ("llama-3", ["apple<|eot_id|>", "apple!<|eot_id|>"]),
        ("chatml", ["apple<|im_end|>", "apple!<|im_end|>"]),
        ("jinja", ["apple<|im_end|>", "apple!<|im_end|>"]),
    ],
)
def test_only_the_assistants_words_and_its_end_of_turn_are_trained_on(tokenizer, name, runs):
    chat = Chat(name, tokenizer)
    assert trained_text(chat, TALK) == runs
    assert trained_text(chat, SYSTEM) == runs


def test_vicuna_is_fastchats_string(like_llama):
    chat = Chat("vicuna_v1.1", like_llama)
    assert chat.pieces(TALK).text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Say apple. ASSISTANT: apple</s>USER: Again. "
        "ASSISTANT: apple!</s>"
    )


@pytest.mark.parametrize("name", [*TEMPLATES, "jinja"])
def test_the_prompt_of_sampling_is_the_head_of_what_was_trained_on(tokenizer, name):
    chat = Chat(name, tokenizer)
    tokens, mask = encode(chat, TALK)
    for turns in (1, 3):
        prompt = chat.prompt(TALK[:turns])
        assert tokens[: len(prompt)] == prompt
        assert mask[len(prompt)] and not mask[len(prompt) - 1]


@pytest.mark.parametrize("name", [*TEMPLATES, "jinja"])
def test_prompts_on_real_tokenizers_too(shared, name):
    chat = Chat(name if name != "jinja" else "chatml", Tokenizer(str(shared / "models" / "stories260k")))
    tokens, _ = encode(chat, TALK)
    prompt = chat.prompt(TALK[:1])
    assert tokens[: len(prompt)] == prompt


def test_raw_text_is_trained_on_whole(tokenizer, like_llama):
    tokens, mask = encode(Chat("chatml", like_llama), [Message("text", "1 + 2 = 3")])
    assert tokens[0] == tokenizer.bos_id and tokens[-1] == tokenizer.eos_id
    assert mask == [False, *[True] * (len(tokens) - 1)]
    assert encode(Chat("chatml", tokenizer), [Message("text", "1 + 2 = 3")]) == (tokens[1:], mask[1:])


def test_a_role_that_the_template_lacks_is_refused_by_name(tokenizer):
    with pytest.raises(BadRow, match="no place for a 'tool' message"):
        Chat("vicuna_v1.1", tokenizer).pieces([*TALK, Message("tool", "42")])
    assert trained_text(Chat("chatml", tokenizer), [*TALK, Message("tool", "42")])[-1] == "apple!<|im_end|>"


@pytest.mark.parametrize("said", [Message("user", "what is </s>?"), Message("assistant", "<|im_end|> ends a turn")])
def test_words_never_become_control_tokens(tokenizer, said):
    with pytest.raises(BadRow, match=r"holds '(</s>|<\|im_end\|>)'.*control token"):
        Chat("chatml", tokenizer).pieces([*TALK[:1], said])
    assert "<s >" in tokenizer.decode_whole(encode(Chat("chatml", tokenizer), [Message("user", "a <s > b")])[0])


def test_what_ends_an_answer(tokenizer):
    assert Chat("chatml", tokenizer).stops() == ([2, 4], [])
    assert Chat("jinja", tokenizer).stops() == ([2, 4], [])
    assert Chat("llama-3", tokenizer).stops() == ([2], ["<|eot_id|>"])
    assert Chat("vicuna_v1.1", tokenizer).stops() == ([2], [])


def test_an_unknown_template_names_the_nearest(tokenizer):
    with pytest.raises(UserError, match=r"did you mean 'vicuna_v1\.1'"):
        Chat("vicuna_v1", tokenizer)
