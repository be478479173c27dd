"""Rows as conversations: every field that has a meaning is used, or refuses its row by name."""

import json
import re
from importlib import resources

import pytest
from conftest import ROOT
from test_sources import conversations, write_lines

from sftmix_jax.data import cache, formats, meanings, sources
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.messages import BadRow, Conversation
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.experiment.stages import Resolved
from sftmix_jax.machine.errors import UserError

ASK, SAY = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "say"}
DOCS = (ROOT / "docs" / "data_formats.md").read_text()


def read(tmp_path, *rows, **settings) -> list[Conversation | BadRow]:
    path = write_lines(tmp_path / "rows.jsonl", rows)
    return [found for _, found in sources.read_conversations(Source(path, **settings))]


def one(tmp_path, row, **settings) -> Conversation:
    (found,) = read(tmp_path, row, **settings)
    assert not isinstance(found, BadRow), found
    return found


def refused(tmp_path, row, **settings) -> str:
    (found,) = read(tmp_path, row, **settings)
    assert isinstance(found, BadRow), found
    return str(found)


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def weights(conversation: Conversation) -> list[float]:
    return [message.weight for message in conversation.messages if message.role == "assistant"]


# --- what is trained on ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "weight"),
    [
        ({"weight": 0}, 0),
        ({"weight": 1}, 1),
        ({"weight": 0.3}, 0.3),
        ({"weight": 2}, 2),
        ({"loss": False}, 0),
        ({"loss": True}, 1),
        ({"train": False}, 0),
        ({"training": False}, 0),
        ({"training": True}, 1),
        ({"trainable": 0}, 0),
        ({"weight": 0.5, "train": True}, 0.5),
        ({"weight": 1, "loss": False}, 0),
        ({"weight": None}, 1),
    ],
)
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_a_turn_says_how_much_it_is_trained_on(tmp_path, column, fields, weight):
    found = one(tmp_path, {column: [ASK, SAY | fields, ASK, SAY]})
    assert weights(found) == [weight, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"weight": -0.5},
        {"weight": "0"},
        {"weight": True},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"weight": 1e30},
        {"loss": "false"},
        {"loss": 1.7},
        {"train": 2},
        {"training": []} | {"training": [1]},
        {"loss_mask": 0},
        {"mask": False},
        {"train_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}]},
        {"loss_scale": 0.5},
        {"prefix": True},
        {"images": ["a.png"]},
        {"refusal": "I will not."},
        {"reasoning_details": [{"text": "t"}]},
    ],
)
def test_a_field_that_cannot_be_used_refuses_the_row_by_its_name(tmp_path, fields):
    (name,) = fields
    assert f"'{name}'" in refused(tmp_path, {"messages": [ASK, SAY | fields]})
    assert f"'{name}'" in refused(tmp_path, {"prompt": "p", "response": "r", **fields})


@pytest.mark.parametrize(
    "name",
    [
        "System",
        "systemPrompt",
        "SYSTEM_PROMPT",
        "system-prompt",
        "Weight",
        "weights",
        "turn_weights",
        "lossMask",
        "loss_weights",
        "answer_mask",
        "train_on_turn",
        "trainOnTurn",
        "rejected_answer",
        "answerRejected",
        "Chosen",
        "Tools",
        "toolCalls",
        "Label",
        "History",
        "Reasoning_Content",
    ],
)
def test_a_meaning_in_another_spelling_refuses_the_row_by_its_name(tmp_path, name):
    for row in (
        {"messages": [ASK, SAY | {name: "x"}]},
        {"messages": [ASK, SAY], name: "x"},
        {"prompt": "p", "response": "r", name: ["x"]},
    ):
        assert f"'{name}' would be lost" in refused(tmp_path, row)
    assert said(one(tmp_path, {"prompt": "p", "response": "r", name: "x"}, columns={name: ""}))
    others = {
        "train_on_turn": False,
        "learn": False,
        "is_train": False,
        "no_loss": True,
        "ignore": True,
        "thinking_content": "hm",
        "chat_history": [["q", "a"]],
        "available_tools": [{}],
    }
    for name, value in others.items():
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY | {name: value}]})
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY], name: value})
    for name in (
        "Loss",
        "Train",
        "Trainable",
        "lossMask",
        "Weight",
        "Label",
        "Desirable",
        "is_train",
        "compute_loss",
        "use_loss",
        "do_not_train_on_this",
        "chosen",
        "loss_weight",
    ):
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY | {name: False}]})
        assert f"'{name}' would be lost" in refused(tmp_path, {"prompt": "p", "response": "r", name: False})
    for name in ("loss", "Loss", "train"):
        part = {"type": "text", "text": "a", name: False}
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY | {"content": [part]}]})
    assert "'image_url' would be lost" in refused(tmp_path, {"prompt": "p", "response": "r", "image_url": "u"})
    for name in (
        "sys_prompt",
        "systemMsg",
        "tool_schemas",
        "function_definitions",
        "available_functions",
        "options",
        "include_in_loss",
        "use_for_training",
        "loss_on",
        "trainable_turns",
        "deleted",
    ):
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY], name: True})
    for name in (
        "supervised",
        "calculate_loss",
        "no_train",
        "exclude",
        "dialogue_history",
        "tool_definitions",
        "passage",
        "image_path",
        "attachments",
        "enable_thinking",
        "cot",
        "is_error",
    ):
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY | {name: "x"}]})
        assert f"'{name}' would be lost" in refused(tmp_path, {"messages": [ASK, SAY], name: True})
    for name in ("no_loss", "ignore", "prefix", "Ignore", "skip", "is_error", "train_on_prompt", "images", "tools"):
        assert said(one(tmp_path, {"messages": [ASK, SAY | {name: False}]}))
    assert said(one(tmp_path, {"messages": [ASK, SAY], "system_instruction": "s"}))[0] == ("system", "s")
    for note in ("trainer", "attention_mask", "train_id", "file", "weighted_by", "systematic", "labels", "unmasked_by"):
        assert said(one(tmp_path, {"prompt": "p", "response": "r", note: "x"}))


def test_weights_beside_a_prompt_weigh_its_answer(tmp_path):
    found = one(tmp_path, {"query": "q", "response": "r", "weight": 0.25})
    assert weights(found) == [0.25]
    found = one(tmp_path, {"messages": [ASK, SAY | {"weight": 0.5}, ASK, SAY], "weight": 0.5})
    assert weights(found) == [0.25, 0.5]
    assert one(tmp_path, {"text": "t", "weight": 0.5}).messages[0].weight == 0.5


def test_a_row_whose_answers_all_have_weight_0_has_nothing_to_train_on(tmp_path):
    assert "nothing to train on" in refused(tmp_path, {"messages": [ASK, SAY | {"weight": 0}]})
    assert "nothing to train on" in refused(tmp_path, {"instruction": "i", "output": "o", "train": False})
    assert "nothing to train on" in refused(tmp_path, {"text": "t", "loss": False})


def test_only_answers_can_be_trained_on(tmp_path):
    unweighted = [{"from": "human", "value": "q", "weight": 0}, {"from": "gpt", "value": "a", "weight": 1}]
    assert weights(one(tmp_path, {"conversations": unweighted})) == [1]
    for fields in ({"weight": 1}, {"loss": True}, {"train": True}):
        assert "a 'user' turn that is to be trained on" in refused(tmp_path, {"messages": [ASK | fields, SAY]})


@pytest.mark.parametrize("row", [{"prompt": "p", "completion": "c"}, {"messages": [ASK, SAY]}])
@pytest.mark.parametrize("name", ["label", "kto_tag", "desirable", "is_correct", "labels", "is_preferred"])
def test_answers_marked_as_bad_are_refused_and_others_are_not(tmp_path, row, name):
    for bad in (False, 0, -1, -0.5, "false", " False ", "0", "-1", "no", "bad", "Rejected", "undesirable", [False]):
        assert f"'{name}' is false" in refused(tmp_path, row | {name: bad})
    for neither in (0.5, "0.25", float("nan"), "inf", [True, False]):
        assert f"'{name}' must be true or false" in refused(tmp_path, row | {name: neither})
    for good in (True, 1, 1.0, "1", "yes", "Desirable", None):
        found = one(tmp_path, row | {name: good})
        assert weights(found) == [1] and not found.unused
    for a_class in ("sports", ["sports", "news"], [3, 4], 3, "4"):  # of something else: said
        found = one(tmp_path, row | {name: a_class})
        assert weights(found) == [1] and found.unused == {name}


def test_a_text_classifier_s_classes_are_no_verdicts(tmp_path):
    assert said(one(tmp_path, {"text": "t", "label": 0})) == [("text", "t")]
    assert one(tmp_path, {"text": "t", "label": 0}).unused == {"label"}
    for bad in (False, "false", "False"):
        assert "'label' is false" in refused(tmp_path, {"text": "t", "label": bad})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"chosen": [ASK, SAY], "rejected": [ASK, SAY]},
        {"prompt": "p", "chosen": "c", "rejected": "r", "messages": [ASK, SAY]},
        {"query": "q", "response": "r", "rejected_response": "x"},
    ],
)
def test_preference_rows_are_named_as_such(tmp_path, row):
    try:
        reason = refused(tmp_path, row)
    except UserError as error:
        reason = str(error)
    assert "preference row" in reason and ("'chosen'" in reason or "'rejected_response'" in reason)


def test_the_chosen_answer_of_a_preference_row_can_be_mapped(tmp_path):
    columns = {"completion": "chosen", "rejected": ""}
    found = one(tmp_path, {"prompt": "p", "chosen": "c", "rejected": "r"}, columns=columns)
    assert said(found) == [("user", "p"), ("assistant", "c")]


# --- tools ----------------------------------------------------------------------------------------

CALL = {"type": "function", "function": {"name": "w", "arguments": {"city": "Ulm"}}}
TOOL = {"type": "function", "function": {"name": "w", "description": "the weather"}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "w", "arguments": '{"city": "Ulm"}'}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "w", "arguments": {"city": "Ulm"}}]},
        {"role": "assistant", "content": None, "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": None, "function_call": {"name": "w", "arguments": '{"city": "Ulm"}'}},
        {"from": "function_call", "value": '{"name": "w", "arguments": {"city": "Ulm"}}'},
        {"from": "function_call", "value": '[{"name": "w", "arguments": "{\\"city\\": \\"Ulm\\"}"}]'},
        {"role": "tool_call", "content": '{"name": "w", "arguments": {"city": "Ulm"}}'},
        {"from": "function_call", "value": {"name": "w", "arguments": {"city": "Ulm"}}},
        {"from": "function_call", "value": CALL},
    ],
)
def test_the_model_s_calls_are_its_own_turns_in_the_form_that_templates_take(tmp_path, turn):
    rest = [{"role": "tool", "content": "sunny", "tool_call_id": "c1", "name": "w"}, SAY]
    found = one(tmp_path, {"messages": [ASK, turn, *rest]})
    assert said(found) == [("user", "ask"), ("assistant", ""), ("tool", "sunny"), ("assistant", "say")]
    assert found.messages[1].fields == {"tool_calls": [CALL]} and weights(found) == [1, 1]
    assert found.messages[2].fields == {"tool_call_id": "c1", "name": "w"}


@pytest.mark.parametrize("value", [[TOOL], [TOOL["function"]], json.dumps([TOOL["function"]]), [json.dumps(TOOL)]])
@pytest.mark.parametrize("name", ["tools", "functions"])
def test_tools_reach_the_conversation(tmp_path, name, value):
    assert one(tmp_path, {"messages": [ASK, SAY], name: value}).tools == [TOOL]


def test_calls_without_arguments_have_an_empty_object(tmp_path):
    for arguments in ("", None, {}, "{}"):
        turn = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "w", "arguments": arguments}}]}
        (call,) = one(tmp_path, {"messages": [ASK, turn]}).messages[1].fields["tool_calls"]
        assert call == {"id": "1", "type": "function", "function": {"name": "w", "arguments": {}}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ASK, SAY], "tools": "a weather service"}, "'tools' is not JSON"),
        ({"messages": [ASK, SAY], "tools": [{"description": "d"}]}, "'tools' holds a tool without a name"),
        ({"messages": [ASK, SAY], "tools": [TOOL], "functions": [{"name": "v"}]}, "'tools' and 'functions' differ"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"function": {"name": ""}}]}]}, "tool_calls holds a call without a"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "w", "arguments": "x="}]}]}, "arguments is not JSON"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "w", "arguments": [1]}]}]}, "arguments are no object"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "w", "args": {"n": 3}}]}]}, "unknown field 'args' of a"),
        ({"messages": [ASK, SAY | {"tool_calls": [CALL | {"function": {"name": "w", "input": {"a": 1}}}]}]}, "'input'"),
        ({"messages": [ASK, SAY | {"tool_calls": [CALL | {"arguments": {"n": 3}}]}]}, "unknown field 'arguments'"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "w", "arguments": '{"a": 1, "a": 2}'}]}]}, "stands twice"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "w", "arguments": '{"a": 1e400}'}]}]}, "number 1e400"),
        ({"messages": [ASK, SAY | {"tool_calls": [{"name": "w", "arguments": '{"a": NaN}'}]}]}, "the number NaN"),
        ({"messages": [ASK, SAY], "tools": '[{"name": "f", "name": "g"}]'}, "'tools' is JSON with a key that stands"),
        ({"messages": [ASK | {"tool_calls": [CALL]}, SAY]}, "tool_calls in a turn of the role 'user'"),
        ({"conversations": [ASK, {"from": "function_call", "value": "w()"}]}, "the turn of a call is not JSON"),
        ({"text": "t", "tools": [TOOL]}, "'tools' would be lost"),
    ],
)
def test_unreadable_tools_and_calls_are_named(tmp_path, row, reason):
    assert reason in refused(tmp_path, row)


STRUCT = {"role": ["user", "assistant"], "content": ["ask", "say"]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": STRUCT},
        {"conversations": {"from": ["human", "gpt"], "value": ["ask", "say"]}},
        {"messages": json.dumps(STRUCT)},
        {"messages": STRUCT | {"name": None}},
        {"messages": STRUCT, "conversations": [ASK, SAY]},
        {"messages": [ASK, SAY], "conversations": STRUCT},
        {"messages": STRUCT | {"tool_calls": [None, None], "weight": [None, 1]}},
        {"prompt": {"role": ["user"], "content": ["ask"]}, "completion": {"role": ["assistant"], "content": ["say"]}},
        {"prompt": "ask", "completion": "say", "history": {"role": [], "content": []}},
    ],
)
def test_turns_may_be_an_object_of_lists(tmp_path, row):
    found = one(tmp_path, row)
    assert said(found) == [("user", "ask"), ("assistant", "say")] and weights(found) == [1] and not found.unused


def test_an_object_of_lists_is_read_turn_by_turn_or_refused(tmp_path):
    calls = {"name": ["w"], "arguments": [{"city": "Ulm"}]}
    turns = {
        "role": ["user", "assistant", "tool", "assistant"],
        "content": ["ask", None, "sunny", "say"],
        "tool_calls": [None, calls, None, None],
        "weight": [None, 0.5, None, 1],
    }
    found = one(tmp_path, {"messages": turns, "tools": {"type": ["function"], "function": [TOOL["function"]]}})
    assert found.messages[1].fields == {"tool_calls": [CALL]} and weights(found) == [0.5, 1] and found.tools == [TOOL]
    for unequal in ({"role": ["user", "assistant"], "content": ["ask"]}, STRUCT | {"weight": [1]}):
        assert "not equally long" in refused(tmp_path, {"messages": unequal})
    assert "no list" in refused(tmp_path, {"messages": {"role": "user", "content": ["ask", "say"]}})
    assert "'conversations' stands beside" in refused(tmp_path, {"messages": STRUCT, "conversations": [ASK, ASK]})
    assert refused(tmp_path, {"messages": {"role": [], "content": []}})


@pytest.mark.parametrize("nothing", ["null", "None", "", "[]", "{}", " [] ", None, [], {}])
def test_a_structure_that_is_stored_as_the_text_of_nothing_is_absent(tmp_path, nothing):
    names = ("tools", "functions", "history", "tool_calls", "function_call")
    for row in ({"messages": [ASK, SAY]}, {"prompt": "ask", "completion": "say"}):
        found = one(tmp_path, row | dict.fromkeys(names, nothing))
        assert said(found) == [("user", "ask"), ("assistant", "say")] and not found.tools and not found.unused
    found = one(tmp_path, {"messages": [ASK, SAY | dict.fromkeys(names, nothing)]})
    assert not found.messages[1].fields and not found.unused
    assert said(one(tmp_path, {"text": "t", "tools": nothing})) == [("text", "t")]
    assert said(one(tmp_path, {"prompt": "null", "completion": "[]"})) == [("user", "null"), ("assistant", "[]")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"t": 3, "ok": True, "ä": None}, '{"t": 3, "ok": true, "ä": null}'),
        ([1, "b"], '[1, "b"]'),
        (["x"], '["x"]'),
        ([{"t": 3}], '[{"t": 3}]'),
        ([], "[]"),
        ({}, "{}"),
        (42, "42"),
        (False, "false"),
        ("", ""),
        ('{"t":3}', '{"t":3}'),
        ([{"type": "rain"}], '[{"type": "rain"}]'),
        ({"type": "text", "text": "sunny"}, "sunny"),
        ([{"type": "text", "text": "sun"}, {"type": "text", "text": "ny"}], "sunny"),
    ],
)
def test_a_tool_s_result_that_is_no_text_is_json(tmp_path, content, text):
    found = one(tmp_path, {"messages": [ASK, SAY, {"role": "tool", "content": content}, SAY]})
    assert said(found)[2] == ("tool", text)
    chat = Chat(
        "",
        Tokenizer(str(resources.files("sftmix_jax.tiny").joinpath("base"))),
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '</s>' }}{% endfor %}",
    )
    assert f"<|tool|>{text}</s>" in chat.pieces(found.messages).text


def test_a_tool_s_result_that_is_missing_refuses_the_row(tmp_path):
    for turn in ({"role": "tool", "content": None}, {"role": "tool"}, {"from": "observation", "value": None}):
        assert "without a result" in refused(tmp_path, {"messages": [ASK, SAY, turn, SAY]})
    for content, reason in (
        ([{"type": "image_url", "image_url": "u"}], "'image_url', which"),
        ({"t": float("nan")}, "a value that JSON does not have"),
    ):
        assert reason in refused(tmp_path, {"messages": [ASK, SAY, {"role": "tool", "content": content}, SAY]})


def test_a_class_0_is_refused_with_the_setting_that_leaves_it_out(tmp_path):
    row = {"question": "q", "answer": "a", "label": 0}
    reason = refused(tmp_path, row)
    columns = eval(re.search(r"columns=(\{.*\})", reason)[1])
    assert said(one(tmp_path, row, columns=columns)) == [("user", "q"), ("assistant", "a")]
    assert "columns={'label': ''}" in refused(tmp_path, row | {"label": 0.5})
    assert "columns" not in refused(tmp_path, {"messages": [ASK, SAY | {"label": 0}]})


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("is_safe", False),
        ("valid", "false"),
        ("answer_valid", 0),
        ("toxic", True),
        ("flagged", 1),
        ("spam", "yes"),
        ("low_quality", True),
        ("hallucination", "yes"),
        ("status", "rejected"),
        ("Status", " Rejected"),
        ("quality", "bad"),
        ("answer_quality", "very poor"),
        ("review_status", "failed"),
        ("llm_verdict", "incorrect"),
        ("safety", "unsafe"),
        ("llama_guard_2", "unsafe\nS1"),
        ("finalDecision", "discard"),
        ("quality", False),
    ],
)
def test_a_verdict_that_the_answer_is_bad_refuses_the_row(tmp_path, field, bad):
    row = {"question": "q", "answer": "a", field: bad}
    reason = refused(tmp_path, row)
    assert f"'{field}'" in reason and "bad one" in reason
    assert one(tmp_path, row, columns=eval(re.search(r"columns=(\{.*\})", reason)[1]))  # the advice works
    reason = refused(tmp_path, {"messages": [ASK, SAY | {field: bad}]})
    assert f"'{field}'" in reason and "bad one" in reason and "columns" not in reason
    found = one(tmp_path, {"messages": [ASK | {field: bad}, SAY]})  # of the question
    assert found.unused == {f"{field} of turns"}


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("is_safe", True),
        ("valid", "true"),
        ("toxic", False),
        ("toxic", "no"),
        ("status", "done"),
        ("status", 404),
        ("quality", 0),
        ("quality", 0.3),
        ("quality", "good"),
        ("rating", -1.5),
        ("final_decision", "no"),
        ("input_quality", "very poor"),
        ("prompt_quality", "bad"),
        ("grade", "B"),
        ("correctness_count", 0),
        ("finish_reason", "length"),
        ("review", "A bad film."),
        ("toxicity", 0.9),
        ("status", ["rejected", "kept"]),
    ],
)
def test_scores_and_other_words_are_left_out_and_named(tmp_path, field, other):
    found = one(tmp_path, {"question": "q", "answer": "a", field: other})
    assert said(found) == [("user", "q"), ("assistant", "a")]
    assert found.unused == (set() if meanings.is_verdict(field) else {field})  # what says yes is used


def test_what_was_measured_of_two_answers_makes_no_preference_row(tmp_path):
    """UltraFeedback's chosen answer can be mapped beside its scores."""
    row = {
        "prompt": "q",
        "chosen": [ASK, SAY],
        "rejected": [ASK, SAY],
        "messages": [ASK, SAY],
        "score_chosen": 8.0,
        "score_rejected": 3.0,
        "chosen_model": "m",
        "chosen-rating": 5,
    }
    assert "map the wanted one by `columns`" in refused(tmp_path, row)
    found = one(tmp_path, row, columns={"messages": "chosen", "rejected": ""})
    assert found.unused >= {"score_chosen", "score_rejected", "chosen_model", "chosen-rating"}


def test_one_message_of_a_tree_is_no_document(tmp_path):
    """As OASST's rows are."""
    row = {"text": "t", "role": "prompter", "parent_id": None}
    assert "join its messages" in refused(tmp_path, row)
    assert said(one(tmp_path, row, format="text")) == [("text", "t")]


def test_turns_that_are_texts_are_to_be_converted(tmp_path):
    """As LIMA's are."""
    assert refused(tmp_path, {"conversations": ["q", "a"]}).endswith(
        "this is a str; name a function in `convert` that gives each turn 'role' and 'content'"
    )


def test_a_verdict_that_is_left_out_of_the_row_is_left_out_of_its_turns(tmp_path):
    row = {"conversation": [ASK | {"toxic": True}, SAY | {"toxic": True}], "toxic": True}
    assert "'toxic'" in refused(tmp_path, row)
    assert one(tmp_path, row, columns={"toxic": ""}).unused == {"toxic of turns"}


def test_fields_that_say_a_row_is_wrong_refuse_it(tmp_path):
    row = {"question": "q", "answer": "a"}
    for name in ("correct", "passed", "keep", "answer_correct", "tests_passed", "is_verified", "run_success"):
        assert f"'{name}' is false" in refused(tmp_path, row | {name: False})
        assert f"'{name}' is false" in refused(tmp_path, {"messages": [ASK, SAY | {name: "false"}]})
        assert not one(tmp_path, row | {name: True}).unused
        assert one(tmp_path, row | {name: "B"}).unused == {name}
    for name in ("wrong", "is_incorrect", "failed", "is_bad", "dropped", "exclude_from_training"):
        for yes in (True, 1, "true", "yes"):
            assert f"'{name}' would be lost" in refused(tmp_path, row | {name: yes})
        for no in (False, 0, "False", "no", "0"):
            assert said(one(tmp_path, row | {name: no}))
    for name in ("should_train", "api_list", "conversation_history", "system_text"):
        assert f"'{name}' would be lost" in refused(tmp_path, row | {name: "x"})
    for note in ("corrections", "success_rate", "incorrect_answer_1", "failed_at", "passport", "correct_index"):
        assert one(tmp_path, row | {note: 0.5}).unused == {note}


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ({"thumbs_down": True}, "bad one"),
        ({"valid_for_training": False}, "not to use"),
        ({"usable_for_training": 0}, "not to use"),
        ({"do_not_use": True}, "would be lost"),
        ({"downvoted": "yes"}, "bad one"),
        ({"is_negative": 1}, "bad one"),
        ({"good": False}, "bad one"),
        ({"helpful": "no"}, "bad one"),
        ({"harmless": False}, "bad one"),
        ({"ok": "false"}, "bad one"),
        ({"use": False}, "not to use"),
        ({"include": "no"}, "not to use"),
        ({"label": "spam"}, "bad one"),
        ({"hidden": True}, "no part of the conversation"),
        ({"error": True}, "no part of the conversation"),
        ({"chat_history": [["q", "a"]]}, "context"),
        ({"Label": "x"}, "read under the name 'label'"),
    ],
)
def test_a_negative_name_refuses_rows_and_turns_and_says_why(tmp_path, field, cause):
    (name,) = field
    for row in ({"question": "q", "answer": "a"} | field, {"messages": [ASK, SAY | field]}):
        reason = refused(tmp_path, row)
        assert f"'{name}'" in reason and cause in reason, reason


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ({"metadata": {"train": False}}, "metadata.train"),
        ({"meta": {"weight": 0}}, "meta.weight"),
        ({"metadata": {"weight": 0.5}}, "metadata.weight"),
        ({"metadata": {"toxic": True}}, "metadata.toxic"),
        ({"metadata": {"label": False}}, "metadata.label"),
        ({"meta": {"quality": "bad"}}, "meta.quality"),
        ({"metadata": {"loss_mask": [0, 1]}}, "metadata.loss_mask"),
        ({"meta": {"rejected": "x"}}, "meta.rejected"),
        ({"label": {"good": False}}, "label.good"),
        ({"quality": {"is_valid": False}}, "quality.is_valid"),
        ({"metadata": '{"train": false}'}, "metadata.train"),
        ({"meta": {"do_not_use": 1}}, "meta.do_not_use"),
    ],
)
def test_control_in_an_object_of_notes_refuses_by_its_path(tmp_path, field, path):
    row = {"question": "q", "answer": "a"} | field
    assert f"'{path}'" in (reason := refused(tmp_path, row))
    assert one(tmp_path, row, columns=eval(re.search(r"columns=(\{.*\})$", reason)[1]))  # the advice works
    assert f"'{path}'" in (reason := refused(tmp_path, {"messages": [ASK, SAY | field]})) and "columns" not in reason


@pytest.mark.parametrize(
    "notes",
    [
        {"train": True},
        {"weight": 1},
        {"toxic": False},
        {"label": True, "id": 3},
        {"source": {"train": False}},
        "{",
        {"quality": 0.2},
        ["train"],
        '{"lang": "en"}',
    ],
)
def test_notes_that_change_nothing_are_left_out_and_named(tmp_path, notes):
    for column in ("metadata", "meta"):
        assert one(tmp_path, {"question": "q", "answer": "a", column: notes}).unused == {column}
        found = one(tmp_path, {"messages": [ASK, SAY | {column: notes}]})
        assert found.unused == {f"{column} of turns"}


def test_notes_on_a_question_or_a_document_are_no_verdicts_of_an_answer(tmp_path):
    assert one(tmp_path, {"messages": [ASK | {"metadata": {"toxic": True, "quality": "bad"}}, SAY]})
    assert one(tmp_path, {"text": "t", "metadata": {"label": 0, "quality": "low"}})
    assert "'metadata.train'" in refused(tmp_path, {"text": "t", "metadata": {"train": False}})


# --- beside the turns -----------------------------------------------------------------------------

ROWS = {
    "alpaca": {"instruction": "q", "output": "a"},
    "query": {"query": "q", "response": "a"},
    "orca": {"question": "q", "response": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_system_and_history_are_part_of_the_conversation(tmp_path, row):
    whole = [("system", "s"), ("user", "q0"), ("assistant", "a0"), ("user", "q"), ("assistant", "a")]
    for name in ("system", "system_prompt"):
        found = one(tmp_path, row | {name: "s", "history": [["q0", "a0"]]})
        assert said(found) == whole and weights(found) == [1, 1]
    turns = [{"role": "user", "content": "q0"}, {"from": "gpt", "value": "a0"}]
    assert said(one(tmp_path, row | {"history": turns})) == whole[1:]
    for nothing in ({"system": "", "history": []}, {"system": None, "history": None}, {"system": "  "}):
        assert said(one(tmp_path, row | nothing)) == whole[3:]
    for history in ("before", [["q0"]], [["q0", None]], ["q0", "a0"], 7):
        assert "'history'" in refused(tmp_path, row | {"history": history})
    assert "'system'" in refused(tmp_path, row | {"system": ["s", 1]})


def test_a_system_prompt_twice_is_one_and_two_are_refused(tmp_path):
    turns = [{"role": "system", "content": "s"}, ASK, SAY]
    assert said(one(tmp_path, {"messages": turns, "system": "s"}))[:2] == [("system", "s"), ("user", "ask")]
    assert "'system' and the system turn differ" in refused(tmp_path, {"messages": turns, "system": "t"})
    assert "differ" in refused(tmp_path, {"messages": [ASK, SAY], "system": "s", "system_prompt": "t"})


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "thought"])
def test_reasoning_is_a_field_of_its_answer(tmp_path, name):
    for row in ({"messages": [ASK, SAY | {name: "hm"}]}, {"question": "ask", "answer": "say", name: "hm"}):
        found = one(tmp_path, row)
        assert found.messages[1].content == "say" and found.messages[1].fields == {name: "hm"}
    assert f"'{name}'" in refused(tmp_path, {"messages": [ASK, SAY], name: "of which turn?"})


def test_text_parts_are_joined_and_others_refused(tmp_path):
    parts = [{"type": "text", "text": "as"}, {"type": "text", "text": "k"}]
    assert said(one(tmp_path, {"messages": [{"role": "user", "content": parts}, SAY]}))[0] == ("user", "ask")
    picture = {"type": "image_url", "image_url": {"url": "u"}}
    for part in (
        picture,
        {"type": "input_audio"},
        parts[0] | {"value": "other"},
        {"type": "text", "text": None},
        7,
    ):
        assert "content" in refused(tmp_path, {"messages": [{"role": "user", "content": [parts[0], part]}, SAY]})
    assert "'image_url'" in refused(tmp_path, {"messages": [{"role": "user", "content": [picture]}, SAY]})
    assert "a message whose content, in a part: unknown field 'foo'" in refused(
        tmp_path, {"messages": [ASK, SAY | {"content": [parts[0] | {"foo": 1}]}]}
    )
    weighted = [parts[0] | {"weight": 0}]
    assert "'weight'" in refused(tmp_path, {"messages": [ASK, {"role": "assistant", "content": weighted}]})


def test_a_list_of_answers_is_not_glued(tmp_path):
    for several in (["4", "four"], ["4", "four", "IV"]):
        assert f"a list of {len(several)} texts" in refused(tmp_path, {"question": "2+2?", "answer": several})
        assert f"a list of {len(several)} texts" in refused(tmp_path, {"messages": [ASK, SAY | {"content": several}]})
    assert said(one(tmp_path, {"question": "2+2?", "answer": ["4"]}))[1] == ("assistant", "4")


def test_roles_in_any_letter_case_and_by_newer_names(tmp_path):
    turns = [{"role": "Developer", "content": "d"}, {"from": "Human", "value": "q"}, {"from": "GPT", "value": "a"}]
    assert said(one(tmp_path, {"conversations": turns})) == [("system", "d"), ("user", "q"), ("assistant", "a")]
    turns = [{"from": "USER", "value": "q"}, {"role": "Assistant", "content": "a"}]
    assert said(one(tmp_path, {"messages": turns})) == [("user", "q"), ("assistant", "a")]
    assert "differ" in refused(tmp_path, {"messages": [ASK | {"from": "gpt"}, SAY]})
    for role in ("function_response", "tool-result", "Tool Output", "function-response"):
        turns = [ASK, {"role": role, "content": "4", "tool_call_id": 7}, SAY]
        found = one(tmp_path, {"messages": turns}).messages[1]
        assert (found.role, found.fields) == ("tool", {"tool_call_id": "7"})


@pytest.mark.parametrize("content", [3, 0, True, {"text": "t"}, 1.5])
def test_what_is_no_text_is_never_made_one(tmp_path, content):
    assert "not text" in refused(tmp_path, {"messages": [{"role": "user", "content": content}, SAY]})
    assert "'response'" in refused(tmp_path, {"prompt": "p", "response": content})
    assert "'input'" in refused(tmp_path, {"instruction": "i", "input": content, "output": "o"})


def test_conversational_prompts_are_not_trained_on(tmp_path):
    row = {"prompt": [ASK, SAY, ASK], "completion": [SAY | {"content": "end"}]}
    found = one(tmp_path, row)
    assert said(found)[2:] == [("user", "ask"), ("assistant", "end")] and weights(found) == [0, 1]
    assert weights(one(tmp_path, row | {"completion": "end"})) == [0, 1]
    assert said(one(tmp_path, {"prompt": "p", "completion": [SAY]})) == [("user", "p"), ("assistant", "say")]


def test_alpaca_joins_what_is_there(tmp_path):
    for instruction, extra, prompt in [("", "x", "x"), (" \n", "x", "x"), ("i", "", "i"), ("i", None, "i")]:
        found = one(tmp_path, {"instruction": instruction, "input": extra, "output": "o"})
        assert found.messages[0].content == prompt
    assert "neither" in refused(tmp_path, {"instruction": "", "input": "", "output": "o"})
    dolly = {"instruction": "i", "context": "c", "response": "r", "category": "open_qa"}
    assert one(tmp_path, dolly).messages[0].content == "i\n\nc"
    assert "'context'" in refused(tmp_path, {"question": "q", "context": "c", "answer": "a"})
    found = one(tmp_path, {"question": "q", "context": "c", "answer": "a"}, columns={"input": "context"})
    assert found.messages[0].content == "q\n\nc"


def test_notes_change_nothing(tmp_path):
    notes = {
        "id": 3,
        "source": "s",
        "score": 0.5,
        "tags": ["a"],
        "split": "train",
        "language": "en",
        "text": "User: ask\nBot: say",
        "prompt": "ask",
        "question": "You: ask",
        "answer": "42",
        "images": [],
        "tools": None,
        "label": None,
    }
    turn = {"id": 1, "timestamp": 2.5, "model": "m", "markdown": None}
    plain = one(tmp_path, {"messages": [ASK, SAY]})
    found = one(tmp_path, {"messages": [ASK | turn, SAY | turn]} | notes)
    assert found._replace(unused=frozenset()) == plain
    # said once per run: what is not the conversation word for word (as prompt is) and not absent
    assert found.unused == {
        "id",
        "source",
        "score",
        "tags",
        "split",
        "language",
        "answer",
        "text",
        "question",
        "id of turns",
        "timestamp of turns",
        "model of turns",
    }


def test_another_format_s_columns_must_hold_the_same_words(tmp_path):
    row = {"messages": [ASK, SAY]}
    assert "'completion' stands beside messages" in refused(tmp_path, row | {"completion": "other"})
    assert said(one(tmp_path, row | {"completion": "say", "response": 4}))[1] == ("assistant", "say")
    assert said(one(tmp_path, row | {"conversations": [ASK, SAY]}))[1] == ("assistant", "say")
    assert "'conversations'" in refused(tmp_path, row | {"conversations": [ASK, SAY | {"content": "no"}]})
    found = one(tmp_path, row | {"completion": "other"}, format="messages")
    assert said(found) == said(one(tmp_path, row)) and found.unused == {"completion"}
    for name in ("Response", "COMPLETION", "Text"):
        assert f"'{name}' stands beside prompt" in refused(tmp_path, {"prompt": "p", "response": "r", name: "other"})
        assert said(one(tmp_path, {"prompt": "p", "response": "r", name: "p r" if name == "Text" else "r"}))
        assert said(one(tmp_path, {"prompt": "p", "response": "r", name: "other"}, columns={name: ""}))


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (
            {
                "messages": [ASK | {"content": "A or B"}, SAY | {"content": "A"}],
                "conversations": [ASK | {"content": "A or B"}, SAY | {"content": "B"}],
            },
            "conversations",
        ),
        ({"prompt": "yes or no?", "completion": "no", "response": "yes"}, "response"),
        ({"question": "4 or 5?", "answer": "5", "response": "4"}, "response"),
        ({"messages": [ASK, SAY], "prompt": "say"}, "prompt"),
        ({"messages": [ASK, SAY], "response": "ask"}, "response"),
        ({"messages": [ASK, SAY], "conversations": [SAY, ASK]}, "conversations"),
    ],
)
def test_another_answer_to_the_same_question_is_never_dropped(tmp_path, row, name):
    """Words of the answer may stand in the question: each column is compared with turns of its own role."""
    assert f"'{name}' stands beside" in refused(tmp_path, row)


def test_what_is_only_a_part_of_the_conversation_is_named(tmp_path):
    row = {"messages": [ASK, SAY | {"content": "I say 4"}]}
    for fields in ({"response": "4"}, {"response": 5}, {"prompt": "In French.\nask"}, {"text": "ask\nI say 4\nmore"}):
        assert one(tmp_path, row | fields).unused == set(fields)
    for fields in ({"prompt": "ask"}, {"prompt": [ASK]}, {"response": "I say 4"}, {"completion": row["messages"][1:]}):
        assert not one(tmp_path, row | fields).unused


def test_an_answer_that_holds_its_prompt_is_not_asked_twice(tmp_path):
    """UltraFeedback's chosen and rejected are whole conversations beside a prompt."""
    columns = {"prompt": "prompt", "completion": "chosen", "rejected": ""}
    for prompt in ("ask", [ASK]):
        row = {"prompt": prompt, "chosen": [ASK, SAY], "rejected": [ASK, SAY]}
        assert said(one(tmp_path, row, columns=columns)) == [("user", "ask"), ("assistant", "say")]
        row |= {"chosen": [ASK | {"content": "other"}, SAY]}
        assert "which is not its prompt" in refused(tmp_path, row, columns=columns)


def test_a_column_that_is_left_out_must_be_there(tmp_path):
    assert said(one(tmp_path, {"prompt": "p", "response": "r", "foo": 1}, columns={"foo": ""}))
    with pytest.raises(UserError, match="no row has the column 'fo' that `columns` names; did you mean 'foo'"):
        one(tmp_path, {"prompt": "p", "response": "r", "foo": 1}, columns={"fo": ""})


def test_an_empty_conversation_beside_another_format_is_refused(tmp_path):
    for row in (
        {"messages": [], "prompt": "p"},
        {"conversations": [], "instruction": "i"},
        {"messages": []},
        {"messages": [], "text": "t"},
        {"messages": "[]", "question": "q"},
    ):
        assert refused(tmp_path, row)


def test_a_rendered_conversation_may_stand_beside_its_turns(tmp_path):
    row = {"instruction": "Add.", "input": "2, 2", "output": "Four.\n\nThat is 4."}
    text = "### Instruction:\nAdd.\n\n### Input:\n2, 2\n\n### Response:\nFour.\n\nThat is 4."
    assert said(one(tmp_path, row | {"text": text})) == said(one(tmp_path, row))
    assert "'text' stands beside" in refused(tmp_path, row | {"text": text.replace("4", "5")})
    assert "'question' stands beside" in refused(tmp_path, {"messages": [ASK, SAY], "question": "and?"})


def test_half_a_character_is_refused_wherever_it_stands(tmp_path):
    half = "\ud83d"
    call = {"role": "assistant", "tool_calls": [{"name": "w", "arguments": {"a": half}}]}
    for row in (
        {"prompt": half, "response": "r"},
        {"text": half},
        {"messages": [ASK, call]},
        {"messages": [ASK, SAY], "tools": [{"name": "w", "description": half}]},
        {"messages": [ASK, SAY | {"reasoning_content": half}]},
    ):
        assert "surrogate" in refused(tmp_path, row)
    assert said(one(tmp_path, {"prompt": "\U0001f600", "response": "r"}))[0] == ("user", "\U0001f600")
    assert refused(tmp_path, {"messages": [{"role": half, "content": "c"}, SAY]}).encode()


# --- columns --------------------------------------------------------------------------------------


def test_mapped_columns_decide_the_format(tmp_path):
    row = {"messages": [ASK, SAY], "problem": "p", "solution": "s", "hints": "h"}
    found = one(tmp_path, row, columns={"question": "problem", "answer": "solution", "system": "hints"})
    assert said(found) == [("system", "h"), ("user", "p"), ("assistant", "s")]
    assert said(one(tmp_path, row, columns={"system": "hints"}))[:2] == [("system", "h"), ("user", "ask")]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"qestion": "a", "answer": "b"}, r"no format has a column 'qestion'; did you mean 'question'\?"),
        ({"sytem": "a"}, r"did you mean 'system'\?"),
        ({"prompt": "a", "response": "a"}, "'a' of the file is mapped to more than one column"),
        ({"prompt": "a"}, r"rows\.jsonl:1: the columns prompt make no format: map completion or response too"),
        ({"prompt": "a", "answer": "b"}, "the columns answer, prompt make no format: no format has them all"),
    ],
)
def test_columns_that_make_no_format_are_explained(tmp_path, columns, reason):
    with pytest.raises(UserError, match=reason):
        read(tmp_path, {"a": "x", "b": "y"}, columns=columns)


def test_a_field_in_whose_place_another_is_mapped_is_named(tmp_path):
    found = one(
        tmp_path,
        {"question": "old", "problem": "p", "solution": "s"},
        columns={"question": "problem", "answer": "solution"},
    )
    assert said(found) == [("user", "p"), ("assistant", "s")] and found.unused == {"question"}


def test_the_advice_for_preference_rows_works(tmp_path):
    for row in (
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"chosen": [ASK, SAY], "rejected": [ASK, SAY]},
        {"question": "p", "chosen": "c", "rejected": "r"},
        {"query": "p", "chosen": "c", "rejected": "r"},
        {"instruction": "p", "input": "", "chosen_response": "c", "rejected_response": "r"},
    ):
        with pytest.raises(UserError, match="preference row") as error:
            one(tmp_path, row)
        columns = eval(re.search(r"columns=(\{.*\})", str(error.value))[1])
        assert len(said(one(tmp_path, row, columns=columns))) == 2


def test_preference_rows_of_whole_texts_are_told_to_be_converted(tmp_path):
    with pytest.raises(UserError, match="whole texts: name a function in `convert`"):
        one(tmp_path, {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"})


@pytest.mark.parametrize("field, value", [("code", "def f(): pass"), ("summary", "short"), ("role", "prompter")])
def test_a_text_beside_its_answer_is_no_document(tmp_path, field, value):
    """MBPP's, summaries' and OASST's rows."""
    row = {"text": "Write a function.", field: value, "task_id": 1}
    assert f"the field '{field}' stands beside a text" in refused(tmp_path, row)
    assert said(one(tmp_path, row, format="text")) == [("text", "Write a function.")]
    if field != "role":
        mapped = one(tmp_path, row, columns={"instruction": "text", "output": field})
        assert said(mapped) == [("user", "Write a function."), ("assistant", value)]


@pytest.mark.parametrize("switch", ["on", "off", "High", False, "enabled", "/no_think"])
def test_a_switch_of_reasoning_is_no_thought(tmp_path, switch):
    found = one(tmp_path, {"prompt": "Q", "response": "A", "reasoning": switch})
    assert found.messages[-1].fields == {} and found.unused == {"reasoning"}


def test_a_column_that_the_file_lacks_is_named_as_in_the_file(tmp_path):
    rows, columns = [{"body": "q", "reply": "a"}] * 2, {"prompt": "boddy", "response": "reply"}
    source = Source(write_lines(tmp_path / "rows.jsonl", rows), columns=columns)
    found = sources.read_conversations(source)
    assert str(next(found)[1]) == str(next(found)[1]) == "no column 'boddy'"
    with pytest.raises(UserError, match=r"rows\.jsonl:1: no row has the column 'boddy'.*did you mean 'body'"):
        next(found)
    with pytest.raises(UserError, match=r"no row has the column 'sys'"):
        read(tmp_path, *rows, columns={"prompt": "body", "response": "reply", "system": "sys"})
    mapped = {"question": "problem", "answer": "solution"}  # what has our name is not what was mapped
    without = {"problem": "p", "answer": "gold"}
    for row, reason in (
        (without, "no column 'solution'"),
        ({**without, "solution": None}, "the column 'solution' is null"),
    ):
        found = read(tmp_path, {"problem": "p", "solution": "s", "answer": "4"}, row, columns=mapped)
        assert said(found[0]) == [("user", "p"), ("assistant", "s")] and str(found[1]) == reason
    found = read(tmp_path, {"body": "q", "reply": "a"}, {"body": "q"}, columns={"prompt": "body", "response": "reply"})
    assert str(found[1]) == "no column 'reply'"


def test_the_format_is_that_of_the_first_row_which_has_one(tmp_path):
    pair = {"prompt": "p", "response": "r"}
    found = read(tmp_path, {"note": "a header"}, pair, {"messages": [ASK, SAY]}, {"prompt": "p"})
    assert [str(row) if isinstance(row, BadRow) else said(row)[0] for row in found] == [
        "no column 'prompt'",
        ("user", "p"),
        "no column 'prompt'",
        "no column 'response'",
    ]
    found = read(tmp_path, {"messages": None, **pair}, {"messages": [ASK, SAY], **dict.fromkeys(pair)})
    assert said(found[0])[0] == ("user", "p") and str(found[1]) == "the column 'prompt' is null"


def test_null_columns_of_an_unknown_format_are_named_as_null(tmp_path):
    with pytest.raises(UserError, match=r"columns instruction \(null\), output are no known format"):
        read(tmp_path, {"instruction": None, "output": "a"})


# --- convert --------------------------------------------------------------------------------------


def converted(tmp_path, body: str, row=None) -> list[Conversation | BadRow]:
    (tmp_path / "mine.py").write_text(f"def turns(row):\n    {body}\n")
    return read(tmp_path, row or {"q": "q"}, convert=f"{tmp_path / 'mine.py'}:turns")


@pytest.mark.parametrize(
    "body",
    [
        "return [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a', 'weight': 0.5}]",
        "yield {'from': 'human', 'value': 'q'}; yield {'role': 'assistant', 'content': 'a', 'weight': 0.5}",
        "return {'messages': [('user', 'q')] and [{'role': 'user', 'content': 'q'},"
        " {'role': 'assistant', 'content': 'a'}], 'weight': 0.5}",
    ],
)
def test_convert_returns_turns_or_a_row(tmp_path, body):
    (found,) = converted(tmp_path, body)
    assert said(found) == [("user", "q"), ("assistant", "a")] and weights(found) == [0.5]


def test_convert_may_compute_with_numpy(tmp_path):
    answer = "{'role': 'assistant', 'content': np.str_('a'), 'weight': np.float32(0.5)}"
    turns = f"[{{'role': 'user', 'content': 'q'}}, {answer}]"
    (found,) = converted(tmp_path, f"import numpy as np; return {{'messages': {turns}, 'train': np.bool_(True)}}")
    assert said(found) == [("user", "q"), ("assistant", "a")] and weights(found) == [0.5]


def test_convert_gives_tools_and_calls(tmp_path):
    body = f"return {{'messages': {[ASK, {'role': 'assistant', 'tool_calls': [CALL]}]}, 'tools': {[TOOL]}}}"
    (found,) = converted(tmp_path, body)
    assert found.tools == [TOOL] and found.messages[1].fields == {"tool_calls": [CALL]}


def test_keys_that_are_no_text_end_in_no_traceback(tmp_path):
    turns = [ASK | {1: 2}, SAY]
    (found,) = converted(tmp_path, f"return {{'messages': {turns}, 3: 4}}")
    assert "unknown field" in str(found)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return row['x']", "convert raised KeyError: 'x'"),
        ("yield {}['x']", "convert raised KeyError: 'x'"),
        ("raise ValueError('no luck')", "convert raised ValueError: no luck"),
        ("return None", "convert returned a NoneType"),
        ("return 'text'", "convert returned a str"),
        ("return 3", "convert returned a int"),
        ("return ['q', 'a']", "a turn must be an object, this is a str"),
        ("return []", "no answer"),
        (f"return [{ASK}, {SAY | {'wieght': 0}}]", "unknown field 'wieght'; did you mean 'weight'?"),
        (f"return {{'messages': [{ASK}, {SAY}], 'tolls': []and 0 or [1]}}", "unknown field 'tolls'"),
        (f"return {{'turns': [{ASK}, {SAY}]}}", "no column 'messages'"),
        (f"return [{ASK}, {SAY | {'role': 'narrator'}}]", "unknown role 'narrator'"),
    ],
)
def test_what_convert_does_wrong_makes_a_bad_row(tmp_path, body, reason):
    (found,) = converted(tmp_path, body)
    assert isinstance(found, BadRow) and reason in str(found)


def test_a_turn_without_a_role_says_what_it_has_and_what_to_do(tmp_path):
    reason = refused(tmp_path, {"messages": [{"speaker": "A", "utterance": "q"}, SAY]})
    assert reason == (
        "a turn without a role (it has speaker, utterance); name a function in `convert` to give each turn 'role' and "
        "'content'"
    )
    roles = {"A": "user", "B": "assistant"}
    body = f"return [{{'role': {roles}[t['speaker']], 'content': t['words']}} for t in row['talk']]"
    talk = [{"speaker": "A", "words": "q"}, {"speaker": "B", "words": "a"}]
    (tmp_path / "mine.py").write_text(f"def turns(row):\n    {body}\n")
    found = one(tmp_path, {"talk": talk}, convert=f"{tmp_path / 'mine.py'}:turns")
    assert said(found) == [("user", "q"), ("assistant", "a")]
    (found,) = converted(tmp_path, f"return [{{'content': 'q'}}, {SAY}]")
    assert str(found).endswith("(it has content); `convert` must give each turn 'role' and 'content'")


@pytest.mark.parametrize("field", ["label", "quality", "chosen", "toxic", "images", "unknown"])
def test_what_convert_returns_is_never_mended_by_columns(tmp_path, field):
    """`convert` and `columns` exclude each other."""
    value = {"label": 0, "quality": "bad", "toxic": True}.get(field, "x")
    (found,) = converted(tmp_path, f"return {{'messages': [{ASK}, {SAY}], '{field}': {value!r}}}")
    assert isinstance(found, BadRow) and "columns" not in str(found)


def test_a_convert_file_that_fails_is_named(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"q": "q"}])
    for text, reason in [
        ("def turns(:\n", r"mine\.py:1: convert: not Python"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("def turnz(row): ...\n", "has no function turns; did you mean 'turnz'"),
    ]:
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(UserError, match=reason):
            conversations(Source(path, convert=f"{tmp_path / 'mine.py'}:turns"))
    with pytest.raises(UserError, match="no effect beside convert"):
        conversations(Source(path, convert=f"{tmp_path / 'mine.py'}:turns", columns={"prompt": "q"}))


# --- the page -------------------------------------------------------------------------------------


def test_the_documented_rows_are_read_in_the_format_that_is_named(tmp_path):
    examples = re.findall(r"^(\w+)[^\n]*\n```json\n(.*?)\n```", DOCS, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in examples] == list(formats.FORMATS)
    for name, text in examples:
        row = json.loads(text)
        found = formats.layout("auto", {}, row)
        assert found is not None and found.format is formats.FORMATS[name]
        assert one(tmp_path, row).messages


def test_a_run_names_the_fields_that_it_leaves_out(tmp_path):
    rows = [{"prompt": "p", "response": "r", "id": i} | ({"note": "n"} if i else {}) for i in range(3)]
    source = Source(write_lines(tmp_path / "rows.jsonl", rows))
    share = {"d": Share(count=3)}
    resolved = Resolved(Experiment("e", domains={"d": source}, stages={"s": Stage(mixture=share)}))
    said = resolved.description.splitlines()[-1]
    assert said == "domain 'd': fields without a meaning for training, left out: id, note (2 rows)"


def test_a_run_names_participants_whom_the_template_leaves_out(tmp_path):
    tokenizer = Tokenizer(str(resources.files("sftmix_jax.tiny").joinpath("base")))
    named = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + (':' + m.name if m.name and m.role == 'user' else '') + "
        "'\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    (tmp_path / "named.jinja").write_text(named)
    rows = [{"messages": [ASK | {"name": "Ann"}, SAY | {"name": "Bob"}]}, {"messages": [ASK, SAY]}]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    for template, left_out in (("chatml", {"user", "assistant"}), (str(tmp_path / "named.jinja"), {"assistant"})):
        examples = cache.tokenized("d", Source(path), Chat(template, tokenizer))
        assert examples.unused == {f"name of {role} turns": 1 for role in left_out}


def test_every_name_of_a_meaning_is_documented():
    assert {name for name in (*meanings.MEANINGS, *meanings.GRADES) if f"`{name}`" not in DOCS} == set()


def test_a_source_without_a_usable_row_names_places_and_reasons(tmp_path):
    tokenizer = Tokenizer(str(resources.files("sftmix_jax.tiny").joinpath("base")))
    path = write_lines(tmp_path / "rows.jsonl", [{"instruction": "double it", "input": 4, "output": "8"}] * 2)
    with pytest.raises(UserError, match=r"none of its 2 rows.*rows\.jsonl:1: the field 'input' is not text; .*:2: "):
        cache.tokenized("d", Source(path, bad_rows="skip"), Chat("chatml", tokenizer))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: the field 'input' is not text \(domain 'd'\)"):
        cache.tokenized("d", Source(path), Chat("chatml", tokenizer))
