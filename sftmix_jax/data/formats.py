"""A row as stored → a conversation. docs/data_formats.md shows a row of each format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from sftmix_jax.data import meanings, stored, stored_turns
from sftmix_jax.data.messages import BadRow, Conversation, Message
from sftmix_jax.data.stored import Fields, shown
from sftmix_jax.machine.errors import UserError, did_you_mean


class Format(NamedTuple):
    columns: tuple[str, ...]  # the format is told by these: a row has all of them
    read: Callable[[Fields], list[Message]]


# --- one function per format ----------------------------------------------------------------------


def _turns(column: str) -> Callable[[Fields], list[Message]]:
    return lambda fields: stored_turns.messages(fields.required(column), f"'{fields.their(column)}'", fields)


def _pair(prompt: str, answer: str) -> Callable[[Fields], list[Message]]:
    """A prompt and its answer; in TRL's conversational form lists of turns, of which the answer's are trained on."""

    def read(fields: Fields) -> list[Message]:
        asked, said = fields.required(prompt), fields.required(answer)
        if _are_turns(asked):
            messages = stored_turns.messages(asked, f"'{fields.their(prompt)}'", fields, weight=0.0)
        else:
            messages = [Message("user", _with_input(fields, stored.text(asked, f"'{fields.their(prompt)}'")))]
        if _are_turns(said):
            return _behind(messages, stored_turns.messages(said, f"'{fields.their(answer)}'", fields))
        return [*messages, _answer(fields, answer, said)]

    return read


def _behind(asked: list[Message], said: list[Message]) -> list[Message]:
    """The turns of an answer behind those of its prompt, which may stand in the answer once more. Raises BadRow."""
    if said and said[0].role != "assistant":
        if [(m.role, m.content.strip()) for m in said[: len(asked)]] != [(m.role, m.content.strip()) for m in asked]:
            raise BadRow(f"an answer that begins with a '{said[0].role}' turn which is not its prompt")
        said = said[len(asked) :]
    return [*asked, *said]


def _are_turns(value: Any) -> bool:
    """Whether a list holds turns: not OpenAI's content parts, which have a type."""
    if stored.is_object_of_lists(value):
        return bool({"role", "from"} & set(value))
    return isinstance(value, list) and any(
        isinstance(turn, Mapping) and ({"role", "from"} & set(turn) or "type" not in turn) for turn in value
    )


def _with_input(fields: Fields, prompt: str) -> str:
    """The prompt and Alpaca's `input` behind an empty line, each only where there is one."""
    value = fields.take("input")
    extra = "" if value is None else stored.text(value, f"the field '{fields.their('input')}'")
    return "\n\n".join(part for part in (prompt, extra) if part.strip()) or prompt


def _alpaca(answer: str) -> Callable[[Fields], list[Message]]:
    """Alpaca's instruction and input; Dolly's `context` is such an input."""

    def read(fields: Fields) -> list[Message]:
        said = fields.required(answer)
        asked = stored.text(fields.required("instruction"), f"'{fields.their('instruction')}'")
        _, extra = fields.one(meanings.ADDED)
        more = "" if extra is None else stored.text(extra, f"the field '{fields.their('input')}'")
        prompt = "\n\n".join(part for part in (asked, more) if part.strip())
        if not prompt:
            raise BadRow("neither an instruction nor an input")
        return [Message("user", prompt), _answer(fields, answer, said)]

    return read


# What `reasoning` holds where it says whether, or how much, the model was to think
_SWITCHES = frozenset(
    {
        "on",
        "off",
        "true",
        "false",
        "yes",
        "no",
        "enabled",
        "disabled",
        "auto",
        "none",
        "minimal",
        "low",
        "medium",
        "high",
        "think",
        "no_think",
        "/think",
        "/no_think",
    }
)


def _answer(fields: Fields, column: str, value: Any) -> Message:
    """The answer, with the reasoning that stands beside it in the row."""
    extra = {}
    for name in meanings.REASONING:
        reasoning = fields.take(name)
        if str(reasoning).strip().lower() in _SWITCHES:
            fields.leave(name)
        elif reasoning is not None:
            extra[name] = stored.text(reasoning, f"the field '{fields.their(name)}'")
    return Message("assistant", stored.text(value, f"'{fields.their(column)}'"), 1.0, extra)


def _document(fields: Fields) -> list[Message]:
    """A text that is trained on whole."""
    stored.refuse_nested(fields, opinions=False)
    # a classifier's classes, numbers or words, are no verdicts
    for name in fields.names():
        if not (meanings.is_verdict(name) or meanings.is_grade(name)):
            continue
        if str(fields.take(name)).strip().lower() == "false":
            raise BadRow(f"the field '{fields.their(name)}' is false: the text is marked as a bad one")
        fields.leave(name)
    return [Message("text", stored.text(fields.required("text"), f"'{fields.their('text')}'"))]


# The first whose columns are all there is taken.
FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _turns("messages")),
    "sharegpt": Format(("conversations",), _turns("conversations")),
    "conversation": Format(("conversation",), _turns("conversation")),
    "alpaca": Format(("instruction", "output"), _alpaca("output")),
    "alpaca_response": Format(("instruction", "response"), _alpaca("response")),
    "prompt_completion": Format(("prompt", "completion"), _pair("prompt", "completion")),
    "prompt_response": Format(("prompt", "response"), _pair("prompt", "response")),
    "question_answer": Format(("question", "answer"), _pair("question", "answer")),
    "question_response": Format(("question", "response"), _pair("question", "response")),
    "query_response": Format(("query", "response"), _pair("query", "response")),
    "text": Format(("text",), _document),
}
_COLUMNS = frozenset().union(*(format.columns for format in FORMATS.values()))
# Beside another format's columns these may be a second conversation; `answer` is often a gold answer, a note.
_RIVALS = (
    "messages",
    "conversations",
    "conversation",
    "instruction",
    "prompt",
    "completion",
    "question",
    "query",
    "response",
    "output",
    "text",
)
_PROMPTS = ("prompt", "instruction", "question", "query")
# Beside a `text` these are the other side of a pair: the text is no document then.
_BESIDE_TEXT = frozenset(
    {"answer", "answers", "code", "summary", "highlights", "solution", "target", "translation", "role"}
)


# --- which format ---------------------------------------------------------------------------------


class Layout(NamedTuple):
    """How the rows of a source are read."""

    format: Format
    columns: Mapping[str, str]  # our column → the file's
    chosen: bool  # by the user; other formats' columns in a row then say nothing


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise UserError for a column name that no format has, and for a column of the file that is mapped twice."""
    known = {*_COLUMNS, *meanings.MEANINGS}
    for ours, theirs in columns.items():
        if ours not in known and theirs:
            raise UserError(f"columns: no format has a column '{ours}'; {did_you_mean(ours, known)}")
        if theirs and list(columns.values()).count(theirs) > 1:
            raise UserError(f"columns: '{theirs}' of the file is mapped to more than one column")


def layout(format: str, columns: Mapping[str, str], row: Mapping[str, Any]) -> Layout | None:
    """How rows like this one are read, None where it has the columns of no format.

    A format that is named decides; else mapped columns do; else the first format whose columns the row has.
    Raises UserError for an unknown format, and for columns that it does not have.
    """
    mapped = {ours for ours, theirs in columns.items() if theirs} & _COLUMNS
    if format != "auto":
        if format not in FORMATS:
            raise UserError(f"format '{format}': {did_you_mean(format, FORMATS)}")
        if surplus := mapped - set(FORMATS[format].columns):
            wanted = ", ".join(FORMATS[format].columns)
            raise UserError(f"columns: the format {format} has no column '{min(surplus)}'; it has {wanted}")
        return Layout(FORMATS[format], columns, True)
    present = {name for name in renamed(row, columns) if row.get(columns.get(name, name)) is not None} | mapped
    for found in FORMATS.values():
        if mapped <= set(found.columns) <= present:
            return Layout(found, columns, bool(mapped))
    return None


def unknown(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> UserError:
    """What to say of rows in no known format."""
    if mapped := {ours for ours, theirs in columns.items() if theirs} & _COLUMNS:
        fitting = [set(found.columns) - mapped for found in FORMATS.values() if mapped <= set(found.columns)]
        missing = " or ".join(sorted({", ".join(sorted(rest)) for rest in fitting}))
        advice = f"map {missing} too" if missing else "no format has them all"
        return UserError(f"{where}: the columns {', '.join(sorted(mapped))} make no format: {advice}")
    if preference := [name for name in row if meanings.is_preference(name)]:
        return UserError(
            f"{where}: '{preference[0]}' makes this a preference row, of which no answer is marked as the one to train "
            f"on; {_map_chosen(row)}"
        )
    wanted = "; ".join("+".join(format.columns) for format in FORMATS.values())
    present = ", ".join(shown(name) + " (null)" * (value is None) for name, value in row.items())
    return UserError(
        f"{where}: columns {present or '(none)'} are no known format ({wanted}); map them, "
        "e.g. columns={'prompt': 'their_name', 'response': 'their_name'}, or name a function in `convert`"
    )


_ANSWERS = {"prompt": "completion", "question": "answer", "query": "response", "instruction": "output"}


def _map_chosen(row: Mapping[str, Any]) -> str:
    """How the wanted answer of a preference row is mapped."""
    good = next((name for name in row if "chosen" in name.lower()), "chosen")
    bad = next((name for name in row if "reject" in name.lower()), "rejected")
    asked = next((name for name in _ANSWERS if name in row), None)
    if asked:
        wanted = f"'{_ANSWERS[asked]}': '{good}'"
    elif isinstance(row.get(good), str) and not row[good].lstrip().startswith("["):
        return "its answers are whole texts: name a function in `convert` that makes turns of the wanted one"
    else:
        wanted = f"'messages': '{good}'"
    return f"map the wanted one, e.g. columns={{{wanted}, '{bad}': ''}}"


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names. A column that is mapped to '' is left out; what had our name before is nothing."""
    kept = {name: value for name, value in row.items() if name not in columns and name not in columns.values()}
    return kept | {ours: row[name] for ours, name in columns.items() if name in row}


_SIDES = ("user", "assistant")  # of a pair in `history`

# --- a row ----------------------------------------------------------------------------------------


def conversation(row: Mapping[str, Any], layout: Layout) -> Conversation:
    """A row's conversation. Raises BadRow: every field of a meaning is used, or refuses the row by its name."""
    fields = Fields(renamed(row, layout.columns), layout.columns)
    found = _conversation(fields, layout.format.read)
    fields.finish()
    if not layout.chosen:
        _refuse_rivals(fields, found.messages, layout.format.columns)
    replaced = {  # fields of one of our names, in whose place the user has put another
        stored.shown(ours)
        for ours, theirs in layout.columns.items()
        if theirs not in ("", ours) and ours not in layout.columns.values() and row.get(ours) is not None
    }
    return _encodable(found._replace(unused=fields.unused | replaced))


def converted(result: Any) -> Conversation:
    """What a user's `convert` returned: turns, or {"messages": turns, …} with a row's other fields. Raises BadRow."""
    if isinstance(result, str | bytes) or not isinstance(result, Iterable):
        raise BadRow(f"convert returned a {type(result).__name__}; it must return a list of turns, or a dict with one")
    values = _native(result if isinstance(result, Mapping) else {"messages": list(result)})
    fields = Fields(values, strict=True)
    found = _conversation(fields, _turns("messages"))
    fields.finish(("messages", *meanings.WEIGHTS, *meanings.SYSTEM, *meanings.TOOLS, "history"))
    return _encodable(found)  # nothing is unused: an unknown field refuses the row


def _native(value: Any) -> Any:
    """numpy's numbers and arrays as Python's, at any depth: user functions often compute with numpy."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _native(item) for key, item in value.items()}
    return [_native(item) for item in value] if isinstance(value, list | tuple) else value


def _conversation(fields: Fields, read: Callable[[Fields], list[Message]]) -> Conversation:
    """The turns of a format, with what may stand beside them in any format."""
    messages = read(fields)
    tools: list[dict[str, Any]] = []
    if messages and messages[0].role != "text":
        stored.refuse_nested(fields)
        stored.refuse_bad_answer(fields)
        messages = _with_system(fields, _with_history(fields, messages))
        name, value = fields.one(meanings.TOOLS)
        tools = stored_turns.tools(value, f"'{fields.their(name)}'") if name else []
    _check_mask(fields)
    whole = stored.weight(fields)
    if whole is not None:
        trained = ("assistant", "text")
        messages = [m._replace(weight=m.weight * whole) if m.role in trained else m for m in messages]
    return Conversation(messages, tools)


def _check_mask(fields: Fields) -> None:
    """Raise BadRow unless NeMo's `mask`, a role that is not trained on, names the user: nothing of theirs ever is."""
    mask = fields.take("mask")
    if mask is not None and not (isinstance(mask, str) and stored_turns.ROLES.get(mask.strip().lower()) == "user"):
        raise BadRow(f"the field '{fields.their('mask')}' would be lost: {meanings.MEANINGS['mask'].reason}")


def _with_history(fields: Fields, messages: list[Message]) -> list[Message]:
    """Earlier turns, [question, answer] pairs or turns, before the row's own and after its system message."""
    value = fields.take("history")
    if value is None:
        return messages
    what = f"the field '{fields.their('history')}'"
    earlier = []
    for turn in stored.items(value, what):
        if isinstance(turn, Mapping):
            earlier.append(stored_turns.message(turn, fields))
        elif isinstance(turn, list | tuple) and len(turn) == 2:
            earlier += [Message(role, stored.text(part, what)) for role, part in zip(_SIDES, turn, strict=True)]
        else:
            raise BadRow(f"{what} must hold [question, answer] pairs or turns")
    start = int(messages[0].role == "system")
    return [*messages[:start], *earlier, *messages[start:]]


def _with_system(fields: Fields, messages: list[Message]) -> list[Message]:
    """The system prompt that stands beside the turns, as their first message."""
    name, value = fields.one(meanings.SYSTEM)
    if not name:
        return messages
    said = stored.text(value, f"the field '{fields.their(name)}'")
    own = [message.content for message in messages if message.role == "system"]
    if not said.strip() or [said.strip()] == [content.strip() for content in own]:
        return messages
    if own:
        raise BadRow(f"the field '{fields.their(name)}' and the system turn differ")
    return [Message("system", said), *messages]


def _refuse_rivals(fields: Fields, messages: Sequence[Message], own: Iterable[str]) -> None:
    """Raise BadRow where another format's columns hold something that is not in the conversation.

    What stands there word for word is the same conversation; what is only a part or a rendering of it is left out.
    """
    for name in fields.names() if tuple(own) == ("text",) else ():
        if name.lower() not in _BESIDE_TEXT:
            continue
        value = fields.take(name)
        if name.lower() == "role" and value:
            raise BadRow(
                f"the field '{name}' stands beside a text, which is one message of a conversation then; join its "
                "messages in one row, or set format='text' to train on each as a document"
            )
        if value not in (None, "", []):
            raise BadRow(
                f"the field '{name}' stands beside a text, which alone would be trained on, as a document; map both, "
                f"e.g. columns={{'instruction': 'text', 'output': '{name}'}}, or set format='text'"
            )
        fields.leave(name)
    for name in fields.names():
        column = name if name in _RIVALS else meanings.same_letters(name, _RIVALS)
        if not column or name in own or (value := fields.take(name)) is None:
            continue
        match _told(column, value, messages):
            case "part":
                fields.leave(name)
            case "other":
                raise BadRow(
                    f"the field '{name}' stands beside {' and '.join(own)} and holds something else; set `format`, or "
                    f"columns={{'{name}': ''}} to leave it out"
                )


def _told(column: str, value: Any, messages: Sequence[Message]) -> Literal["same", "part", "other"]:
    """What a rival column says of a conversation."""
    if isinstance(value, int | float):  # such as a score
        return "part"
    if stored.is_object_of_lists(value):
        value = stored.items(value, column)
    if isinstance(value, list):
        turns = [
            (_role(turn), str(turn.get("content", turn.get("value"))).strip())
            for turn in value
            if isinstance(turn, Mapping)
        ]
        every = [(message.role, message.content.strip()) for message in messages]
        starts = range(len(every) - len(turns) + 1)
        found = len(turns) == len(value) and any(every[i : i + len(turns)] == turns for i in starts)
        return "same" if found else "other"
    if not isinstance(value, str):
        return "other"
    value = value.strip()
    if column == "text":
        lines = [line.strip() for message in messages for line in message.content.splitlines()]
        return "part" if all(line in value for line in lines) else "other"
    roles = ("user", "system") if column in _PROMPTS else ("assistant",)
    said = [message.content.strip() for message in messages if message.role in roles]
    if value in said:
        return "same"
    rendered = column in _PROMPTS and any(content and content in value for content in said[:1])
    return "part" if rendered or any(value in content for content in said) else "other"


def _role(turn: Mapping[str, Any]) -> str:
    return stored_turns.ROLES.get(str(turn.get("role", turn.get("from"))).strip().lower(), "")


def _encodable(found: Conversation) -> Conversation:
    texts = [message.content for message in found.messages]
    rendered = [dict(message.fields) for message in found.messages if message.fields]
    try:
        for text in texts:
            text.encode()
        if rendered or found.tools:
            json.dumps([rendered, *found.tools], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRow("a lone surrogate, half of a character (as in \\ud83d), which no tokenizer can read") from None
    except (TypeError, ValueError, RecursionError):
        raise BadRow("tools or calls that JSON cannot hold") from None
    return found
