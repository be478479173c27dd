"""Rendering: tokens as transformers gives them, masks as a person would write them."""

import itertools
import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
from etils import epath
from tokenizers import Tokenizer as Backend

from sftmix_jax.data.chat import TEMPLATES, Chat
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import DATE, Template
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine.errors import UserError

TALK = [
    Message("user", "Say apple."),
    Message("assistant", "apple"),
    Message("user", "Again."),
    Message("assistant", "apple!"),
]
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


# --- templates of the shapes that are in use; each is small, and written for these tests ----------

LLAMA31 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday: {{ date_string }}\n"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
    "<|eot_id|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}<|eom_id|>"
    "{% else %}{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# The reasoning of turns before the last question is left out; a turn behind it has a block for it.
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and "
    "loop.index0 > ns.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The generation prompt opens a block that a stored answer does not have, and answers lose what is in one.
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# No system message of its own, another name for the assistant, words trimmed, turns that must alternate.
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ (first if loop.first else '') + m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# The system message stands in the last question, wherever that is.
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}{{ bos_token }}{% for m in turns %}"
    "{% if m.role == 'user' %}[INST] "
    "{{ (system if loop.last or loop.index0 == turns | length - 2 else '') + m.content }}"
    " [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
ASSISTANT_END = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{{ '<|assistant_end|>' if m.role == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}{{ m.role }}|"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}<eou>\n{% endfor %}{% if add_generation_prompt %}assistant|{% endif %}"
)
ENDLESS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def own(tmp_path):
    """A chat template in a user's file."""

    def make(source: str, tokenizer: Tokenizer | None = None) -> Chat:
        (tmp_path / "own.jinja").write_text(source)
        return Chat(str(tmp_path / "own.jinja"), tokenizer or Tokenizer(str(TINY)))

    return make


def trained(chat: Chat, messages, tools=()) -> list[str]:
    """The trained stretches of the text."""
    parts = [
        (weight > 0, "".join(p.text for p in group))
        for weight, group in itertools.groupby(chat.pieces(messages, tools).pieces, key=lambda p: p.weight)
    ]
    return [text for is_trained, text in parts if is_trained]


@pytest.mark.parametrize(
    ("source", "runs", "stops"),
    [
        (LLAMA31, ["apple<|eot_id|>", "apple!<|eot_id|>"], ([2], ["<|eot_id|>"])),
        (QWEN3, ["apple<|im_end|>", "<think>\n\n</think>\n\napple!<|im_end|>"], ([2, 4], [])),
        (DEEPSEEK, ["apple</s>", "apple!</s>"], ([2], [])),
        (GEMMA, ["apple<end_of_turn>", "apple!<end_of_turn>"], ([2], ["<end_of_turn>"])),
        (PHI, ["apple<|end|>", "apple!<|end|>\n</s>"], ([2], ["<|end|>"])),
        (ASSISTANT_END, ["apple<|assistant_end|>", "apple!<|assistant_end|>"], ([2], ["<|assistant_end|>"])),
        (PARTS, ["apple<eou>", "apple!<eou>"], ([2], ["<eou>"])),
        (ENDLESS, [" apple", " apple!"], ([2], [])),
    ],
    ids=["llama31", "qwen3", "deepseek", "gemma", "phi", "assistant_end", "parts", "endless"],
)
def test_turns_and_their_ends_are_found_by_position(own, source, runs, stops):
    chat = own(source)
    assert trained(chat, TALK) == runs
    assert chat.stops() == stops


@pytest.mark.parametrize("source", [LLAMA31, QWEN3, GEMMA, PHI, ASSISTANT_END, PARTS, ENDLESS, *TEMPLATES])
def test_every_prompt_is_the_head_of_what_is_trained_on(own, like_llama, source):
    chat = Chat(source, like_llama) if source in TEMPLATES else own(source, like_llama)
    for talk in (TALK, [*TALK, Message("user", "Bye."), Message("assistant", "bye")]):
        tokens, _ = encode(chat, talk)
        for turns in range(1, len(talk), 2):
            prompt = chat.prompt(talk[:turns])
            assert tokens[: len(prompt)] == prompt, (source, turns)


def test_answers_with_spaces_or_with_headers_in_their_words_are_found(own):
    assert trained(own(GEMMA), [TALK[0], Message("assistant", "\n apple \n")]) == ["apple<end_of_turn>"]
    assert trained(own(PHI), [TALK[0], Message("assistant", " apple\n")]) == [" apple\n<|end|>\n</s>"]
    talk = [TALK[0], Message("assistant", "assistant\nassistant"), TALK[2], Message("assistant", "user\n")]
    assert trained(own(QWEN3), talk) == ["assistant\nassistant<|im_end|>", "<think>\n\n</think>\n\nuser\n<|im_end|>"]


def test_a_generation_prompt_that_opens_a_thought_trains_what_is_rendered_and_says_so(own):
    chat = own(DEEPSEEK)
    assert "ends with '<think>\\n'" in chat.description
    assert chat.tokenizer.decode_whole(chat.prompt(TALK[:1])).endswith("<|Assistant|><think>\n")
    assert own(QWEN3).notices == own(PHI).notices == []


def test_a_thought_in_the_words_begins_in_the_generation_prompt_that_opens_it(own):
    """As data of R1 is stored; templates like Qwen 3.5's take the thought out of the words and write it again."""
    parsed = CHATML.replace(
        "m.content", "('<think>\n' + m.content.split('<think>\n')[1] if '<think>\n' in m.content else m.content)"
    )
    opening = parsed.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
    thought = Message("assistant", "<think>\nA fruit.\n</think>\n\napple")
    chat = own(opening)
    assert trained(chat, [TALK[0], thought._replace(content=thought.content + " ")])[0].startswith("A fruit.\n</think>")
    before = chat.tokenizer.decode_whole(chat.prompt(TALK[:1]))
    assert before.endswith("<|im_start|>assistant\n<think>\n")


def test_a_generation_prompt_that_closes_a_thought_is_said_for_rows_with_reasoning(own):
    always = QWEN3.replace("loop.index0 > ns.last", "true")
    closed = always.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
    assert own(always).notices == []
    assert "ends with '\\n</think>" in own(closed).description


def test_a_prompt_may_lose_the_reasoning_of_earlier_answers_and_nothing_else(own, tokenizer):
    talk = [TALK[0], Message("assistant", "A fruit.</think>apple"), TALK[2]]
    assert "fruit" not in tokenizer.decode_whole(own(DEEPSEEK).prompt(talk))
    with pytest.raises(BadRow, match="words of a 'system'"):
        own("{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}").prompt(SYSTEM[:2])


SPACED = (
    "{% for m in messages %}{{ ' [INST] ' + m.content if m.role == 'user' else ' [RESP] ' + m.content + '</s>' }}"
    "{% endfor %}{{ ' [RESP] ' if add_generation_prompt }}"
)


def test_a_prompt_that_shares_a_token_with_the_answer_is_reported(own):
    """A space at the end of the generation prompt becomes a part of the first word, which is then not trained on."""
    chat = own(SPACED)
    assert trained_text(chat, [Message("user", "say 1"), Message("assistant", "one two")]) == [" two</s>"]
    assert "ends with ' ', which the tokenizer joins with an answer's first word" in chat.description
    assert "joins" not in own(SPACED.replace("[RESP] '", "[RESP]'")).description


def test_a_template_without_an_end_of_turn_says_so(own):
    assert "does not end every assistant turn" in own(ENDLESS).description


ASKED = "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "tail",
    [
        ASKED,
        ASKED + "{% if add_generation_prompt %}<think>\n{% endif %}",
        "<|im_start|>{{ 'assistant\n' if messages[-1].role == 'user' else 'user' }}",
    ],
)
def test_a_template_that_begins_a_turn_behind_every_conversation_is_refused(own, tail):
    turns, _, _ = CHATML.partition("{% if add_generation_prompt %}")
    system = "{% if messages[0].role != 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    once = "{% if messages | length > 3 %}{{ raise_exception('one question') }}{% endif %}"
    for head in ("", system, once):
        with pytest.raises(UserError, match="behind the last answer"):
            own(head + turns + tail)


@pytest.mark.parametrize("condition", ["messages[0].role == 'system'", "messages | length > 3", "tools"])
def test_a_turn_begun_behind_some_conversations_refuses_those(own, condition):
    turns, _, _ = CHATML.partition("{% if add_generation_prompt %}")
    listed = "{{ tools | tojson if tools }}"
    chat = own(f"{listed}{turns}{{% if add_generation_prompt or {condition} %}}{ASKED}{{% endif %}}")
    assert trained(chat, TALK[:2]) == ["apple<|im_end|>"]
    talk, tools = {"messages[0].role == 'system'": (SYSTEM, ()), "messages | length > 3": (TALK, ())}.get(
        condition, (TALK[:2], TOOLS)
    )
    with pytest.raises(BadRow, match="writes 'assistant' behind the last answer"):
        trained(chat, talk, tools)


def test_an_answer_that_is_written_otherwise_once_a_question_follows_is_trained_on_as_it_stands(own):
    thought = Message("assistant", "<think>\nA fruit.\n</think>\n\napple")
    lossy = CHATML.replace("m.content", "(m.content if loop.last else m.content.split('</think>')[-1])")
    assert trained(own(lossy), [TALK[0], thought]) == [thought.content + "<|im_end|>"]
    last = "{% for m in messages %}{% if m.role == 'user' or loop.last %}<|{{ m.role }}|>{{ m.content }}</s>{% endif %}"
    chat = own(last + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")
    assert trained(chat, TALK[:2]) == ["apple</s>"]
    with pytest.raises(BadRow, match="leaves out or rewrites words of a 'assistant' message"):
        trained(chat, TALK)


def test_a_list_of_parts_that_is_written_as_python_writes_it_is_not_read(own):
    with pytest.raises(UserError, match="leaves out or rewrites words of a 'user' message"):
        own(CHATML.replace("m.content", "(m.content | capitalize)"))


def test_a_byte_order_mark_is_no_part_of_a_template(own, tmp_path, tokenizer):
    (tmp_path / "marked.jinja").write_bytes(b"\xef\xbb\xbf" + CHATML.encode())
    assert Chat(str(tmp_path / "marked.jinja"), tokenizer).pieces(TALK).text == own(CHATML).pieces(TALK).text


def test_a_tool_s_result_that_is_headed_by_the_call_s_name_is_not_trained_on(own):
    """gpt-oss' and Gemma's: the name stands in the call and once more before the result."""
    source = (
        "{% for m in messages %}{% if m.tool_calls %}{% set ns = m.tool_calls[0].function %}"
        "{{ '<|start|>assistant to=' + ns.name + ' ' + (ns.arguments | tojson) + '<|call|>' }}"
        "{% elif m.role == 'tool' %}"
        "{% set call = messages[loop.index0 - 1].tool_calls[0] %}"
        "{{ '<|start|>' + call.function.name + '<|message|>' + m.content + '<|end|>' }}"
        "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    )
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    talk = [TALK[0], Message("assistant", "", fields={"tool_calls": [call]}), Message("tool", "sunny"), TALK[1]]
    assert trained(own(source), talk) == [' to=weather {"city": "Oslo"}<|call|>', "<|message|>apple<|end|>"]


HARMONY = (
    "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ '<|start|>assistant to=' + c.function.name + '<|channel|>json<|message|>NAMED' + "
    "(c.function.arguments | tojson) + '<|call|>' }}{% endfor %}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


@pytest.mark.parametrize("again", ["", "<call name=\"' + c.function.name + '\">"])
@pytest.mark.parametrize("arguments", [{}, {"city": "Oslo"}])
@pytest.mark.parametrize("tail", [0, 2])
def test_a_call_without_arguments_is_trained_on_as_one_with_arguments(own, again, arguments, tail):
    """gpt-oss' and others': a mark that begins a question stands within the call, before its arguments."""
    chat = own(HARMONY.replace("NAMED", again))
    calls = [{"type": "function", "function": {"name": "weather", "arguments": arguments}}]
    asked = Message("assistant", "", fields={"tool_calls": calls})
    talk = [TALK[0], asked, *[Message("tool", "sunny"), TALK[1]][:tail]]
    named = '<call name="weather">' if again else ""
    call = f" to=weather<|channel|>json<|message|>{named}{json.dumps(arguments)}<|call|>"
    assert trained(chat, talk) == [call, "<|message|>apple<|end|>"][: 1 + tail // 2]


def test_a_question_begun_behind_a_call_without_arguments_is_refused(own):
    source = HARMONY.replace("NAMED", "").replace("'<|call|>'", "'<|call|><|start|>user<|message|>'")
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    with pytest.raises(BadRow, match="behind the last answer"):
        own(source).pieces([TALK[0], Message("assistant", "", fields={"tool_calls": [call]})])


# A result ends with a line break where something follows it, and without one where nothing does, as in Hermes 3's
RESULTS = (
    "{% for m in messages %}{% if m.tool_calls %}{{ '<|im_start|>assistant' }}{% for c in m.tool_calls %}"
    "{{ '\n<call>\n' + (c.function | tojson) + '\n</call>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}{% if loop.previtem.role != 'tool' %}{{ '<|im_start|>tool\n' }}{% endif %}"
    "{{ '<result>\n' + m.content + '\n</result>' + ('' if loop.last else 'BREAK') }}"
    "{% if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>' }}{% endif %}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + ('ANSWERED' if m.role == 'assistant' and not loop.last"
    " else '') + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("line_break", ["\\n", " ", "\\n\\n  ", ""])
def test_white_space_around_a_tool_s_result_may_depend_on_what_follows(own, line_break):
    chat = own(RESULTS.replace("BREAK", line_break).replace("ANSWERED", ""))
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    asked = Message("assistant", "", fields={"tool_calls": [call]})
    talk = [
        TALK[0],
        asked,
        Message("tool", "sunny\n\nwarm"),
        Message("tool", " dry "),
        TALK[1],
        TALK[2],
        asked,
        Message("tool", "sunny"),
        TALK[3],
    ]
    calls = '<call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</call><|im_end|>'
    assert trained(chat, talk) == [calls, "apple<|im_end|>", calls, "apple!<|im_end|>"]
    between = line_break.replace("\\n", "\n")
    assert f"<result>\n dry \n</result>{between}<|im_end|><|im_start|>assistant\napple" in chat.pieces(talk).text
    assert chat.tokenizer.decode_whole(chat.prompt(talk[:4])).endswith("</result><|im_end|><|im_start|>assistant\n")


@pytest.mark.parametrize(("line_break", "answered"), [("!", ""), ("\\n.\\n", ""), ("", "\\n"), ("\\n", " ")])
def test_other_text_or_white_space_in_an_answer_may_not_depend_on_what_follows(own, line_break, answered):
    called = Message("assistant", "", fields={"tool_calls": CALLING[1].fields["tool_calls"]})
    talk = [TALK[0], called, Message("tool", "sunny"), TALK[1], TALK[2], TALK[3]]
    with pytest.raises(UserError if answered else BadRow):
        trained(own(RESULTS.replace("BREAK", line_break).replace("ANSWERED", answered)), talk)


def test_a_template_that_needs_tools_holds_conversations_with_tools(own):
    chat = own("{% for tool in tools %}{{ tool | tojson }}{% endfor %}" + CHATML)
    assert trained(chat, TALK[:2], TOOLS) == ["apple<|im_end|>"]
    assert chat.stops()[1] == [] and "<|im_end|>" in chat.tokenizer.decode_whole(chat.stops()[0])
    with pytest.raises(BadRow, match="not iterable"):
        trained(chat, TALK[:2])


def test_headers_are_refused_in_reasoning_too(own):
    reasoned = "{{ m.reasoning_content + ' so ' if m.reasoning_content }}{{ m.content }}"
    turns = "{% for m in messages %}### {{ m.role }}:\n" + reasoned + "\n{% endfor %}"
    chat = own(turns + "{% if add_generation_prompt %}### assistant:\n{% endif %}")
    for said, fine in (("### user:\nmore", False), ("a fruit", True)):
        message = Message("assistant", "apple", fields={"reasoning_content": said})
        if fine:
            assert trained(chat, [TALK[0], message]) == ["a fruit so apple"]
        else:
            with pytest.raises(BadRow, match="mark of the chat template"):
                chat.pieces([TALK[0], message])


def test_the_header_of_an_answer_behind_an_answer_is_not_trained_on(own):
    """Tulu's and OLMo's: the generation prompt stands behind questions alone."""
    tulu = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>\n' + m.content + '\n' }}{% else %}"
        "{{ '<|assistant|>\n' + m.content + eos_token + '\n' }}{% endif %}"
        "{% if loop.last and add_generation_prompt and m.role == 'user' %}{{ '<|assistant|>\n' }}{% endif %}"
        "{% endfor %}"
    )
    assert trained(own(tulu), [*TALK[:2], TALK[3], *TALK[2:]]) == ["apple</s>", "apple!</s>", "apple!</s>"]


@pytest.mark.parametrize("name", ["alpaca", "vicuna_v1.1"])
def test_an_empty_system_message_leaves_the_preamble_out(tokenizer, name):
    text = Chat(name, tokenizer).pieces([Message("system", ""), *TALK[:2]]).text
    assert text.removeprefix(tokenizer.begin).startswith(("### Instruction:\nSay", "USER: Say"))


def test_brackets_of_a_header_are_never_half_of_an_end(own):
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    chat = own(turns + "{% if add_generation_prompt or messages | length is odd %}[assistant]{% endif %}")
    assert trained(chat, TALK) == ["apple</s>", "apple!</s>"]
    with pytest.raises(BadRow, match="behind the last answer"):
        trained(chat, SYSTEM)


def test_an_answer_that_is_written_once_more_behind_itself_is_refused(own):
    turns = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    with pytest.raises(UserError, match="elsewhere"):
        own(turns + "{{ '<|assistant|>' if add_generation_prompt else '<|last|>' + messages[-1].content }}")


def test_an_end_of_sequence_behind_the_last_answer_is_trained_on(own):
    turns, _, _ = CHATML.partition("{% if add_generation_prompt %}")
    asked = "{% if add_generation_prompt %}" + ASKED + "{% else %}{{ eos_token }}{% endif %}"
    assert trained(own(turns + asked), TALK[:2]) == ["apple<|im_end|>\n</s>"]


def test_a_header_that_the_generation_prompt_lacks_is_said(own):
    chat = own("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}")
    assert trained(chat, TALK[:2]) == ["<|assistant|>apple</s>"]
    assert "does not write '<|assistant|>'" in chat.description


@pytest.mark.parametrize(
    ("source", "messages", "said"),
    [
        (GEMMA, [TALK[0], TALK[0], TALK[1]], "Roles must alternate"),
        (DEEPSEEK, [TALK[0], Message("assistant", "hm</think>apple")], "leaves out or rewrites words of a 'assistant'"),
        ("{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}", SYSTEM, "words of a 'system'"),
        (
            "{% for m in messages %}[{{ m.content | upper if m.role == 'system' else m.content }}]{% endfor %}",
            SYSTEM,
            "words of a 'system'",
        ),
        (
            "{% for m in messages %}[{{ m.content[:4] if m.role == 'system' else m.content }}]{% endfor %}",
            SYSTEM,
            "words of a 'system'",
        ),
        (
            "{% for m in messages %}[{{ m.content }}]{{ m.content.nothing.at_all if m.role == 'system' }}{% endfor %}",
            SYSTEM,
            "cannot hold it: .*no attribute 'nothing'",
        ),
        (
            "{% for m in messages %}[{{ m.content }}]{{ 1 + m.content if m.role == 'system' }}{% endfor %}",
            SYSTEM,
            "cannot hold it: unsupported operand",
        ),
        (MISTRAL, SYSTEM, "renders earlier messages differently once others follow"),
    ],
)
def test_what_a_template_refuses_leaves_out_or_rewrites_is_a_bad_row(own, source, messages, said):
    chat = own(source)
    with pytest.raises(BadRow, match=said):
        chat.pieces(messages)
    assert trained(chat, TALK[:2])


def test_llama_2_needs_a_question_after_the_system_message(tokenizer):
    with pytest.raises(BadRow, match="needs a user message between"):
        Chat("llama-2", tokenizer).pieces([SYSTEM[0], TALK[1], *TALK])


GROWING = (
    "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='x') %}"
    "{% for i in range(60) %}{% set ns.x = GROWN %}{% endfor %}{{ ns.x }}"
)


@pytest.mark.parametrize(
    "body",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}",
        *(
            GROWING.replace("GROWN", grown)
            for grown in (
                "[ns.x, ns.x] | join",
                "ns.x | replace('x', 'xxxx')",
                "'%s%s' | format(ns.x, ns.x)",
                "'%s%s' % (ns.x, ns.x)",
                "'{0}{0}{0}'.format(ns.x)",
                "ns.x.join(['x', ns.x])",
                "ns.x.replace('x', ns.x ~ 'x')",
                "[ns.x, ns.x]",
                "{'a': ns.x, 'b': ns.x}",
                "(ns.x, ns.x)",
                "dict(a=ns.x, b=ns.x)",
                "[ns.x, ns.x] | list | string",
                "[ns.x, ns.x] | map('string') | join(ns.x)",
                "(ns.x ~ ns.x)",
                "ns.x | indent(9999, true)",
                "ns.x | replace('x', 'y' * 9999) | replace('y', 'x')",
                "{'x': [ns.x] * 99} | tojson",
                "ns.x.translate({120: 'xx'})",
                "(ns.x ~ 'x') | wordwrap(1, true, ns.x)",
                "[ns.x, ns.x] | tojson(indent=99)",
                "twice(ns.x)",
            )
        ),
        "{% set ns = namespace(n=9) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
        "{{ (1).to_bytes(1000000000, 'big') | length }}",
        "{{ ('x'.encode() * 1000000000) | length }}",
        "{{ 'x'.encode().ljust(1000000000) | length }}",
        "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ 9 ** 999999999 }}",
        "{{ 1.5 | round(1000000000) }}",
        "{{ [1] | batch(1000000000, 'x') | list }}",
        "{% set ns = namespace(x='x' * 9999) %}{% for i in range(99) %}{% set y %}{% for j in range(99) %}{{ ns.x }}"
        "{% endfor %}{% endset %}{% set ns.x = y %}{% endfor %}{{ ns.x }}",
        "{% for i in range(99999) %}{% set y = [m.content] * 999 %}{% endfor %}",
        "{% for i in range(99999) %}{% set y = range(99999) | max %}{% endfor %}",
        "{% set y = range(99999) | list %}{% for i in range(99999) %}{{ 'x' in y }}{% endfor %}",
        "{% set y = range(99999) | list %}{% for i in range(99999) %}{% if 'x' is in(y) %}{% endif %}{% endfor %}",
        "{% set y = range(99999) | list %}{% for i in range(99999) %}{% set z = y.count(1) %}{% endfor %}",
    ],
)
def test_a_template_that_builds_huge_text_is_stopped(own, body):
    chat = own("{% for m in messages %}{% if m.role == 'system' %}" + body + "{% endif %}[{{ m.content }}]{% endfor %}")
    with pytest.raises(BadRow, match="does not end, or builds far more text"):
        chat.pieces(SYSTEM)
    assert trained(chat, TALK[:2])


@pytest.mark.parametrize(
    "body",
    [
        "{{ '{:>100000000}'.format('a') | length }}",
        "{{ '{:>{w}}'.format('a', w=100000000) | length }}",
        "{{ '{:>{a}{b}}'.format('a', a='1000', b='00000') | length }}",
        "{{ '{x:>{w}}'.format_map({'x': 'a', 'w': 100000000}) | length }}",
        "{{ ('{:>150000}' * 900).format(*range(900)) | length }}",
    ],
)
def test_a_format_is_stopped_before_its_text_is_built(body):
    tracemalloc.start()
    try:
        with pytest.raises(BadRow, match="does not end, or builds far more text"):
            Template(body, {}, "here").render(TALK)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_an_ordinary_format_is_pythons():
    body = "{{ '{:>{w}}|{x[a]:05d}'.format('é', w=7, x={'a': 42}) }}{{ '{x:.3f}'.format_map({'x': 1.5}) }}"
    assert Template(body, {}, "here").render(TALK) == "{:>{w}}|{x:05d}".format("é", w=7, x=42) + "1.500"


def test_a_file_that_is_no_template_is_refused_by_line(own, tokenizer):
    with pytest.raises(UserError, match=r"own\.jinja, line 2: not a jinja template"):
        own("{{ strftime_now('%d') }}\n{% for m in messages %}{{ m.content }}{% endif %}")
    for statement in ("break", "continue"):
        with pytest.raises(UserError, match=r"own\.jinja: not a jinja template"):
            own("{% " + statement + " %}" + CHATML)
    for value in ("messages | map('upper')", "joiner", "messages | selectattr('role')"):  # an address in the text
        with pytest.raises(UserError, match=r"cannot hold it: a .* has no text"):
            own("{{ " + value + " }}" + CHATML)
    with pytest.raises(UserError, match=r"renders no user message .*nothing here"):
        own("{{ raise_exception('nothing here') }}")
    with pytest.raises(UserError, match="no such file"):
        Chat("missing.jinja", tokenizer)


CALLS = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALLING = [
    Message("user", "How is Oslo?"),
    Message("assistant", "", fields={"tool_calls": CALLS}),
    Message("tool", "sunny", fields={"tool_call_id": "c1"}),
    Message("assistant", "It is sunny."),
]


def test_calls_are_trained_on_in_the_templates_form(own):
    chat = own(LLAMA31)
    call = '{"name": "weather", "arguments": {"city": "Oslo"}}<|eom_id|>'  # not JSON within JSON
    assert trained(chat, CALLING, TOOLS) == [call, "It is sunny.<|eot_id|>"]
    assert '"name": "weather"' in chat.pieces(CALLING, TOOLS).text.partition("How is")[0]
    text_form = LLAMA31.replace("{{ c.function | tojson }}", "{{ c.function.name + c.function.arguments }}")
    parsed = [
        CALLING[0],
        CALLING[1]._replace(
            fields={
                "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
            }
        ),
        *CALLING[2:],
    ]
    assert trained(own(text_form), parsed, TOOLS)[0] == 'weather{"city": "Oslo"}<|eom_id|>'


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    ("messages", "tools", "said"),
    [
        (
            [TALK[0], Message("assistant", "Let me look.", fields={"tool_calls": CALLS})],
            (),
            "no place for 'tool_calls'",
        ),
        ([TALK[0], Message("assistant", "4", fields={"reasoning_content": "2 + 2"})], (), "'reasoning_content'"),
        (TALK, TOOLS, "no place for 'tools'"),
        ([Message("user", "Hi", fields={"name": "Ann"}), TALK[1]], (), ""),
    ],
)
def test_a_field_without_a_place_refuses_the_row_by_its_name(tokenizer, template, messages, tools, said):
    chat = Chat(template, tokenizer)
    if not said:
        assert trained(chat, messages, tools)
        return
    with pytest.raises(BadRow, match=said):
        chat.pieces(messages, tools)


def test_reasoning_reaches_a_template_that_has_a_place_for_it(own):
    reasoned = [TALK[0], Message("assistant", "apple", fields={"reasoning_content": "A fruit."})]
    assert trained(own(QWEN3), reasoned) == ["<think>\nA fruit.\n</think>\n\napple<|im_end|>"]
    with pytest.raises(BadRow, match="'reasoning_content'"):  # that of an earlier turn is left out
        own(QWEN3).pieces([*reasoned, *TALK[2:]])
    with pytest.raises(BadRow, match="'tool_calls'"):  # a template that has a place for the first call alone
        two = {"tool_calls": [*CALLS, {"type": "function", "function": {"name": "other", "arguments": "{}"}}]}
        own(LLAMA31.replace("in m.tool_calls %}", "in m.tool_calls[:1] %}")).pieces(
            [CALLING[0], Message("assistant", "", fields=two)], TOOLS
        )


# Writes calls and tools whole, wherever they stand.
CALLER = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ARGUMENTS = {"n": 3, "x": 2.5, "on": True, "off": False, "none": None, "all": [1, "b", {"k": 'ü "q"\n'}]}
ADD = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "required": ["a"],
                "properties": {"a": {"type": "integer", "description": "a number"}},
            },
        },
    }
]


def calling(**arguments) -> list[Message]:
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    return [TALK[0], Message("assistant", "", fields={"tool_calls": [call]})]


def test_every_value_of_a_call_is_in_the_text(own):
    text = json.dumps({"name": "add", "arguments": ARGUMENTS}, ensure_ascii=False)
    assert trained(own(CALLER), calling(**ARGUMENTS)) == [text + "</s>"]
    repr_ = CALLER.replace("c.function | tojson", "c.function.name ~ c.function.arguments.items() | list")
    assert trained(own(repr_), calling(n=3, x=2.5, on=True, none=None, s="v"))


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("c.function.name", {"n": 3}),
        ("c.function.name", {"on": True}),
        ("c.function.name", {"none": None}),
        ("c.function.name ~ c.function.arguments.s", {"s": "v"}),  # without its key
        ("c.function.name ~ {'s': c.function.arguments.s} | tojson", {"s": "v", "n": 3}),
        ("c.function.name ~ (c.function.arguments | tojson | replace('3', '4'))", {"n": 3}),
        ("c.function.name ~ (c.function.arguments | tojson | replace('true', 'false'))", {"on": True}),
        ("c.function.name ~ (c.function.arguments | tojson | lower)", {"s": "Paris"}),
    ],
)
def test_a_call_of_which_a_value_is_lost_refuses_the_row(own, written, arguments):
    with pytest.raises(BadRow, match=r"no place for 'tool_calls'|cannot hold it"):
        own(CALLER.replace("c.function | tojson", written)).pieces(calling(**arguments))


@pytest.mark.parametrize(
    "written",
    [
        "tools[0].function.name",
        "tools[0].function.description",
        "[tools[0].function.name, tools[0].function.parameters] | tojson",
        "[tools[0].function.name, tools[0].function.description, {'a': 'a number'}] | tojson",
    ],
)
def test_tools_need_their_names_descriptions_and_parameters(own, written):
    assert trained(own(CALLER), TALK[:2], ADD) == ["apple</s>"]
    with pytest.raises(BadRow, match="no place for 'tools'"):
        own(CALLER.replace("tools | tojson", written)).pieces(TALK[:2], ADD)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        # the words stand elsewhere whole, and rewritten in their turn
        (
            CALLER.replace("{% for m", "{{ messages | map(attribute='content') | join(' ') }}{% for m", 1).replace(
                "{{ m.content }}", "{{ m.content | replace('a', 'A') }}"
            ),
            "differently|leaves out or rewrites",
        ),
        # the generation prompt stands before the question, or an answer begins with it
        (CALLER.replace("messages %}<", "messages if m.role != 'user' or not add_generation_prompt %}<"), "elsewhere"),
        (
            CALLER.replace("{{ m.content }}", "{{ messages[0].content if m.role == 'assistant' }}{{ m.content }}"),
            "elsewhere",
        ),
        (CALLER.replace("{{ m.content }}", "{{ range(10**5) | random }}{{ m.content }}"), "No filter named 'random'"),
    ],
)
def test_other_words_are_never_trained_on_as_an_answer(own, source, said):
    with pytest.raises((BadRow, UserError), match=said):
        own(source).pieces([TALK[0]._replace(content="a pear"), Message("assistant", " apple")])


def test_weights_are_those_of_the_messages(tokenizer):
    for messages in (TALK, [*TALK[:3], Message("assistant", " apple!\n")]):  # both ways of finding the turns
        weighed = [messages[0], messages[1]._replace(weight=0.0), messages[2], messages[3]._replace(weight=0.25)]
        _, weights = Chat("chatml", tokenizer).encode([Chat("chatml", tokenizer).pieces(weighed)])[0]
        assert set(weights.tolist()) == {0.0, 0.25}


# --- marks in words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("chatml", "<|im_end|>\n<|im_start|>assistant\nfine"),
        ("llama-3", "x<|eot_id|>"),
        ("llama-3", "<|start_header_id|>"),
        ("llama-2", "[/INST] sure [INST]"),
        ("llama-2", "<<SYS>>"),
        ("alpaca", "### Response:\nsure"),
        ("vicuna_v1.1", "fine ASSISTANT: sure"),
        ("vicuna_v1.1", "</s>"),
        (GEMMA, "<end_of_turn>\n<start_of_turn>model"),
        (PHI, "<|assistant|>"),
        (DEEPSEEK, "<|User|>"),
    ],
)
def test_marks_in_words_are_refused_special_token_or_not(own, tmp_path, template, words):
    plain = json.loads((TINY / "tokenizer.json").read_text())["added_tokens"]
    entries = [{**token, "special": token["id"] < 3} for token in plain]
    tokenizer = Tokenizer(str(with_tokenizer(tmp_path / "plain", added_tokens=entries)))
    chat = Chat(template, tokenizer) if template in TEMPLATES else own(template, tokenizer)
    for messages in ([Message("user", words), TALK[1]], [TALK[0], Message("assistant", words)]):
        with pytest.raises(BadRow, match="mark of the chat template"):
            chat.pieces(messages)
    with pytest.raises(BadRow, match="mark of the chat template"):
        chat.prompt([Message("user", words)])


@pytest.mark.parametrize("place", ["id", "arguments", "nested", "name", "tools"])
def test_marks_in_calls_and_tools_are_refused_at_any_place(own, place):
    mark = "x<|im_end|>y"
    arguments = {"arguments": {"id": mark}, "nested": {"a": [{"type": {mark: 1}}]}}.get(place, {})
    function = {"name": mark if place == "name" else "weather", "arguments": arguments}
    call = {"id": mark if place == "id" else "c1", "type": "function", "function": function}
    schema = {"type": "object", "properties": {"id": {"type": "string", "description": mark}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}] if place == "tools" else TOOLS
    with pytest.raises(BadRow, match="mark of the chat template"):
        own(CALLER).pieces([TALK[0], Message("assistant", "", fields={"tool_calls": [call]})], tools)


@pytest.mark.parametrize(
    ("before", "end", "words"),
    [
        ("### ", "\n", "### assistant"),
        ("[{}] ", " [/{}]\n", "x [/assistant]"),
        ("<!-- {} -->", "<!-- end -->", "<!-- user -->"),
        ("{}: ", " ---end---\n", "say ---end---"),
        ("{} said ", " DONE\n", "I am DONE"),
        ("{}>", "@end@", "x@end@y"),
        ("**{}**: ", "\n", "**user**: hi"),
        ("**{}:** ", "\n", "**user:** hi"),
        ("{}：", "\n", "user：hi"),
        ("{}> ", "\n", "say user> hi"),
        ("<{} turn>", "\n", "<user turn>"),
        ("{} said ", "<end >\n", "x<end >"),
        ("{} said ", "§\n", "see §3"),
        ("{} said ", "<end_thought>\n", "<end_thought>"),
    ],
)
def test_what_ends_turns_and_headers_of_any_form_are_refused_in_words(own, before, end, words):
    head, tail = (part.replace("{}", "{{ m.role }}") for part in (before, end))
    head = head + "{{ m.role }}\n" if "{}" not in before else head
    asked = head.replace("m.role", "'assistant'").rstrip()
    chat = own(
        "{% for m in messages %}" + head + "{{ m.content }}" + tail + "{% endfor %}"
        "{% if add_generation_prompt %}" + asked + "{% endif %}"
    )
    assert trained(chat, TALK[:2])
    for talk in ([TALK[0], Message("assistant", words)], [Message("user", words), TALK[1]]):
        with pytest.raises(BadRow, match="is a control token or a mark"):
            chat.pieces(talk)


def test_words_that_are_no_marks_are_kept(own, tokenizer):
    for words in ("a <b>bold</b> [list] and user: x", "<think>no</think>", "if x < 3 and y > 2:", "[1] see [A]"):
        for chat in (Chat("chatml", tokenizer), Chat("llama-2", tokenizer), own(QWEN3), own(GEMMA)):
            assert trained(chat, [Message("user", words), TALK[1]]), words


# --- identity -------------------------------------------------------------------------------------


def test_the_date_is_fixed_and_written_into_the_template(own, tokenizer, monkeypatch):
    from transformers import AutoTokenizer

    chat = own("{{ strftime_now('%d %b %Y, %A %-d.%m.%y %H:%M %j%%') }}\n" + CHATML)
    assert chat.pieces(TALK).text.startswith("26 Jul 2024, Friday 26.07.24 00:00 208%\n<|im_start|>user")
    theirs = AutoTokenizer.from_pretrained(str(TINY), trust_remote_code=False)
    rows = [{"role": m.role, "content": m.content} for m in TALK]
    assert theirs.apply_chat_template(rows, chat_template=chat.source, tokenize=False) == chat.pieces(TALK).text
    assert own(chat.source).source == chat.source  # complete already
    for written in ("%G-W%V-%u %C", "100%% %%d %d", "%-m/%-d/%y", "%F %T"):
        dated = own("{{ strftime_now('" + written + "') }}\n" + CHATML)
        rendered = theirs.apply_chat_template(rows, chat_template=dated.source, tokenize=False)
        assert dated.pieces(TALK).text == rendered and rendered.startswith(f"{DATE:{written}}\n")
    for unknown in ("%s", "%Q", "%-U", "%E", "5%"):
        with pytest.raises(UserError, match="strftime_now does not know a directive of"):
            own("{{ strftime_now('" + unknown + "') }}\n" + CHATML)
    assert own(CHATML).fingerprint != own(CHATML + " ").fingerprint


@pytest.mark.parametrize("name", [*TEMPLATES, LLAMA31, QWEN3, GEMMA, PHI])
def test_transformers_renders_the_saved_template_as_we_do(own, like_llama, tmp_path, name):
    from transformers import AutoTokenizer

    chat = Chat(name, like_llama) if name in TEMPLATES else own(name, like_llama)
    chat.save(epath.Path(tmp_path / "saved"))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "saved"), trust_remote_code=False)
    rows = [{"role": m.role, "content": m.content} for m in SYSTEM]
    ids = theirs.apply_chat_template(rows, return_dict=False)
    assert ids == encode(chat, SYSTEM)[0]
    assert theirs.apply_chat_template(rows[:2], add_generation_prompt=True, return_dict=False) == chat.prompt(
        SYSTEM[:2]
    )
    again = Chat("", Tokenizer(str(tmp_path / "saved")))
    assert (again.source, again.stops()) == (chat.source, chat.stops())


def test_a_base_is_trained_with_its_own_template_if_it_has_one(tmp_path, tokenizer):
    assert Chat("", tokenizer).fingerprint == Chat("jinja", tokenizer).fingerprint
    without = with_tokenizer(tmp_path / "without")
    (without / "chat_template.jinja").unlink()
    assert Chat("", Tokenizer(str(without))).name == "vicuna_v1.1"
    named = with_tokenizer(tmp_path / "named")
    (named / "chat_template.jinja").unlink()
    config = json.loads((named / "tokenizer_config.json").read_text())
    both = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "{{ tools | tojson }}" + CHATML}]
    (named / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": both}))
    chat = Chat("", Tokenizer(str(named)))
    assert chat.pieces(TALK).text == Chat("chatml", tokenizer).pieces(TALK).text
    assert chat.pieces(TALK, TOOLS).text.startswith('[{"type": "function"')


# --- the tokenizer --------------------------------------------------------------------------------


def test_stored_truncation_padding_and_dropout_are_not_obeyed(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    stored = json.loads((TINY / "tokenizer.json").read_text())
    changed = with_tokenizer(
        tmp_path / "changed",
        model=stored["model"] | {"dropout": 0.5},
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 50},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<unk>",
        },
    )
    other = Tokenizer(str(changed))
    text = "one two three four five six seven"
    before = other.fingerprint
    assert other.encode(text) == other.encode_plain(text) == tokenizer.encode(text)
    assert [ids.tolist() for ids, _ in other.encode_with_offsets([text, "a"])] == [
        tokenizer.encode(text),
        [*tokenizer.encode("a")],
    ]
    other._hf(text, truncation=True, max_length=3, padding="max_length")  # what transformers does to its backend
    assert other.encode(text) == tokenizer.encode(text) and other.fingerprint == before == tokenizer.fingerprint
    # nor are they in what is exported, where the tokenizers package and transformers would obey them
    Chat("chatml", other).save(epath.Path(tmp_path / "saved"))
    plain = Backend.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "saved"), trust_remote_code=False)
    assert plain.encode(text).ids == theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.init_kwargs.get("max_length") is None


@pytest.mark.parametrize(
    "field",
    ["split_special_tokens", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"],
)
def test_what_is_saved_reads_and_writes_text_as_here(tmp_path, field):
    from transformers import AutoTokenizer

    changed = with_tokenizer(tmp_path / "changed")
    config = json.loads((changed / "tokenizer_config.json").read_text())
    config |= {field: True, "clean_up_tokenization_spaces": True}
    (changed / "tokenizer_config.json").write_text(json.dumps(config))
    chat, text = Chat("chatml", Tokenizer(str(changed))), "Well , it 's so ."
    chat.save(epath.Path(tmp_path / "saved"))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "saved"), trust_remote_code=False)
    row, ids = {"role": "user", "content": text}, chat.tokenizer.encode(text)
    asked = theirs.apply_chat_template([row], add_generation_prompt=True, return_dict=False)
    assert asked == chat.prompt([Message("user", text)])
    assert theirs.decode(ids) == chat.tokenizer.decode(ids) == text


def test_texts_of_no_template_begin_with_what_the_tokenizer_adds(tokenizer, like_llama, tmp_path):
    assert (tokenizer.begin_ids, tokenizer.begin, tokenizer.encode_plain("a")) == ((), "", tokenizer.encode("a"))
    assert (like_llama.begin_ids, like_llama.begin) == ((1,), "<s>")
    assert like_llama.encode_plain("a") == like_llama.encode_plain("<s>a") == [1, *tokenizer.encode("a")]
    ends = {**BEGINS, "single": [*BEGINS["single"], {"SpecialToken": {"id": "</s>", "type_id": 0}}]}
    ends["special_tokens"] = {**BEGINS["special_tokens"], "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}
    both = Tokenizer(str(with_tokenizer(tmp_path / "both", post_processor=ends)))
    assert both.encode_plain("a") == [1, *tokenizer.encode("a")]
    assert encode(Chat("chatml", both), [Message("text", "a")])[0] == [1, *tokenizer.encode("a"), 2]
    assert Chat("chatml", like_llama).pieces(TALK).text == "<s>" + Chat("chatml", tokenizer).pieces(TALK).text
