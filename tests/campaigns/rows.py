"""Mutated rows in all formats: no traceback, every row accounted for, no field of a meaning dropped.

python -m tests.campaigns.rows [--count 10000] [--seed 0]

Every text of a row holds a word of its own. A row that is used must hold all of them in its conversation, unless they
stood in a field without a meaning for training; such fields must change nothing. Rows are also tokenised, and
examples and skipped rows must add up to the rows of the file. The last line is the verdict; the exit code is 1 for a
failure.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WORD = re.compile(r"zq\d+qz|77\d{7}")
_NOTES = (
    "id",
    "source",
    "language",
    "timestamp",
    "score",
    "tags",
    "index",
    "split",
    "dataset",
    "topic",
    "model",
    "uuid",
    "category",
    "hash",
)
_TEXTS = (
    "system",
    "system_prompt",
    "input",
    "context",
    "reasoning_content",
    "reasoning",
    "thinking",
    "chosen",
    "rejected",
    "completion",
    "response",
    "images",
    "audio",
    "train_detail",
    "documents",
    "mask",
)
_TURN_TEXTS = (
    "reasoning_content",
    "thinking",
    "name",
    "tool_call_id",
    "images",
    "refusal",
    "train_detail",
    "mask",
    "value",
    "content",
)
_OWN = {  # the columns of each format; another format's answer is a note
    "messages": {"messages"},
    "sharegpt": {"conversations"},
    "conversation": {"conversation"},
    "alpaca": {"instruction", "input", "output"},
    "alpaca_response": {"instruction", "context", "response"},
    "prompt_completion": {"prompt", "completion"},
    "prompt_response": {"prompt", "response"},
    "question_answer": {"question", "answer"},
    "question_response": {"question", "response"},
    "query_response": {"query", "response"},
    "text": {"text"},
}
_PER_FILE = 50


class Rows:
    """Rows with a seed; every text holds a word that stands nowhere else."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.words = 0

    def text(self) -> str:
        self.words += 1
        return f"say zq{self.words}qz {self.rng.choice(['', 'now', 'twice', 'in ' + chr(0x4E2D)])}".strip()

    def call(self) -> dict[str, Any]:
        arguments = {"city": self.text(), "days": int(f"77{self.words:07}")}
        return {"name": "weather", "arguments": self.rng.choice([arguments, json.dumps(arguments)])}

    def turns(self, role: str, content: str, user: str, assistant: str) -> list[dict[str, Any]]:
        turns = [{role: "system", content: self.text()}] if self.rng.random() < 0.3 else []
        for _ in range(self.rng.randint(1, 3)):
            turns += [{role: user, content: self.text()}, {role: assistant, content: self.text()}]
            if self.rng.random() < 0.2:
                turns += [
                    {role: user, content: self.text()},
                    self.rng.choice(
                        [
                            {
                                role: assistant,
                                content: None,
                                "tool_calls": [{"type": "function", "function": self.call()}],
                            },
                            {role: "function_call", content: json.dumps(self.call())},
                        ]
                    ),
                    {role: self.rng.choice(["tool", "observation"]), content: self.text()},
                    {role: assistant, content: self.text()},
                ]
        return turns

    def asked(self) -> dict[str, Any]:
        return {"role": "user", "content": self.text()}

    def row(self, format: str) -> dict[str, Any]:
        match format:
            case "messages" | "conversation":
                return {format: self.turns("role", "content", "user", "assistant")}
            case "sharegpt":
                return {"conversations": self.turns("from", "value", "human", "gpt")}
            case "prompt_completion" if self.rng.random() < 0.5:
                return {
                    "prompt": [*self.turns("role", "content", "user", "assistant"), self.asked()],
                    "completion": [{"role": "assistant", "content": self.text()}],
                }
            case _:
                return {name: self.text() for name in _OWN[format]}


def _turns_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The turns of all lists of turns; content parts, which a row's text may be, are none."""
    items = [turn for value in row.values() if isinstance(value, list) for turn in value if isinstance(turn, dict)]
    return [item for item in items if "type" not in item]


def _note(rows: Rows, row: dict[str, Any]) -> None:
    target = rows.rng.choice([row, *_turns_of(row)])
    value = rows.rng.choice([rows.text(), 3, 0, 2.5, None, True, False, ["a"], {"b": 1}, float("nan")])
    target.setdefault(rows.rng.choice(_NOTES), value)


def _field(rows: Rows, row: dict[str, Any]) -> None:
    text = rows.text()
    value = rows.rng.choice([text, text, [text], {"a": text}, [{"type": "text", "text": text}], [[text, text]]])
    row[rows.rng.choice(_TEXTS)] = value


def _turn_field(rows: Rows, row: dict[str, Any]) -> None:
    if turns := _turns_of(row):
        text = rows.text()
        rows.rng.choice(turns)[rows.rng.choice(_TURN_TEXTS)] = rows.rng.choice([text, text, [text], {"a": text}])


def _history(rows: Rows, row: dict[str, Any]) -> None:
    pair = [rows.text(), rows.text()]
    turn = {"role": "user", "content": rows.text()}
    row["history"] = rows.rng.choice([[pair], [pair, [rows.text()]], [turn], rows.text(), [3], [None], []])


def _tools(rows: Rows, row: dict[str, Any]) -> None:
    tool = {"name": "weather", "description": rows.text(), "parameters": {"type": "object"}}
    whole = {"type": "function", "function": tool}
    values = [[tool], [whole], json.dumps([tool]), json.dumps(whole), rows.text(), [rows.text()], [{"a": rows.text()}]]
    row[rows.rng.choice(["tools", "functions"])] = rows.rng.choice(values)


def _parts(rows: Rows, row: dict[str, Any]) -> None:
    if turns := _turns_of(row):
        turn = rows.rng.choice(turns)
        key = "content" if "content" in turn else "value"
        other = rows.rng.choice([{"type": "text", "text": rows.text()}, {"type": "image_url", "image_url": "u"}, 7])
        turn[key] = [{"type": "text", "text": turn.get(key)}, other]


def _role(rows: Rows, row: dict[str, Any]) -> None:
    if turns := _turns_of(row):
        turn = rows.rng.choice(turns)
        key = "role" if "role" in turn else "from"
        change = rows.rng.choice([str.upper, str.title, lambda role: "narrator", lambda role: 3, lambda role: None])
        turn[key] = change(str(turn.get(key)))


def _value(rows: Rows, row: dict[str, Any]) -> None:
    target = rows.rng.choice([row, *_turns_of(row)])
    if target:
        deep: Any = rows.text()
        for _ in range(40):
            deep = [deep]
        values = [
            None,
            "",
            " ",
            3,
            -1.5,
            True,
            False,
            [],
            {},
            [None],
            [3],
            ["a"],
            {"a": 1},
            "\x00",
            "\ud800",
            deep,
            float("nan"),
            float("inf"),
            10**40,
        ]
        target[rows.rng.choice(list(target))] = rows.rng.choice(values)


def _empty(rows: Rows, row: dict[str, Any]) -> None:
    """Another format's column, empty or not, or a meaning in another spelling."""
    name = rows.rng.choice(
        [
            "messages",
            "conversations",
            "prompt",
            "instruction",
            "question",
            "text",
            "systemPrompt",
            "Weights",
            "rejected_answer",
            "toolCalls",
        ]
    )
    row.setdefault(name, rows.rng.choice([[], "", [[]], [{}], rows.text(), [rows.text(), rows.text()]]))


def _delete(rows: Rows, row: dict[str, Any]) -> None:
    target = rows.rng.choice([row, *_turns_of(row)])
    if target:
        del target[rows.rng.choice(list(target))]


def _order(rows: Rows, row: dict[str, Any]) -> None:
    for value in row.values():
        if isinstance(value, list) and value:
            rows.rng.choice([rows.rng.shuffle, list.reverse, list.pop, lambda turns: turns.append(turns[0])])(value)


def _rename(rows: Rows, row: dict[str, Any]) -> None:
    if row:
        name = rows.rng.choice(list(row))
        value = row.pop(name)
        row[rows.rng.choice(["messages", "conversations", "output", "response", "completion", "system"])] = value


_ANY: list[Callable[[Rows, dict[str, Any]], None]] = [
    _note,
    _field,
    _turn_field,
    _history,
    _tools,
    _parts,
    _role,
    _value,
    _empty,
    _delete,
    _order,
    _rename,
]
_WEIGHTS: list[tuple[str, Any, float | None]] = [  # field, value, the weight that it must give; None: refused
    ("weight", 0, 0.0),
    ("weight", 1, 1.0),
    ("weight", 0.25, 0.25),
    ("weight", 3, 3.0),
    ("weight", -1, None),
    ("weight", True, None),
    ("weight", "1", None),
    ("weight", float("nan"), None),
    ("weight", float("inf"), None),
    ("weight", 10**60, None),
    ("weight", [1], None),
    ("loss", False, 0.0),
    ("loss", True, 1.0),
    ("loss", 2.3, None),
    ("train", False, 0.0),
    ("training", 1, 1.0),
    ("train", "no", None),
    ("trainable", 0, 0.0),
    ("label", False, None),
    ("label", True, 1.0),
    ("label", "bad", None),
    ("label", -1, None),
    ("label", "1", 1.0),
    ("label", 0.5, None),
    ("Weight", 0, None),
    ("lossMask", [0], None),
    ("loss_mask", 0, None),
    ("loss_mask", [0, 1], None),
    ("weight", None, 1.0),
]


def _words(value: Any) -> set[str]:
    return set(_WORD.findall(json.dumps(value, default=str)))


def _meant(row: dict[str, Any], format: str) -> set[str]:
    """The words that the conversation must hold."""

    def without_notes(value: Any, top: bool) -> Any:
        if isinstance(value, dict):
            notes = set(_NOTES) | ({"answer"} - _OWN[format] if top else set())
            return {key: without_notes(item, False) for key, item in value.items() if key not in notes}
        return [without_notes(item, False) for item in value] if isinstance(value, list) else value

    return _words(without_notes(row, True))


class Campaign:
    def __init__(self, folder: Path, seed: int):
        from importlib import resources

        from sftmix_jax.data.chat import Chat
        from sftmix_jax.data.tokenizer import Tokenizer

        self.folder, self.rows, self.faults = folder, Rows(seed), list[str]()
        self.counts = Counter[str]()
        self.chat = Chat("chatml", Tokenizer(str(resources.files("sftmix_jax.tiny").joinpath("base"))))

    def fault(self, what: str, row: Any) -> None:
        self.faults.append(f"{what}: {json.dumps(row, default=str)[:600]}")

    def file(self, format: str) -> None:
        """A file of one format: a clean row, then mutated ones, read and tokenised."""
        from sftmix_jax.data.cache import tokenized
        from sftmix_jax.data.messages import BadRow
        from sftmix_jax.data.sources import Source, read_conversations

        rng, made = self.rows.rng, [(self.rows.row(format), "clean", None)]
        for _ in range(_PER_FILE):
            row = self.rows.row(format)
            kind = rng.choice(["notes", "weight", "any", "any", "any"])
            expected: tuple[int | None, float | None] | None = None  # which answer, and its weight
            if kind == "notes":
                made.append((copy.deepcopy(row), "clean", None))
                for _ in range(rng.randint(1, 4)):
                    _note(self.rows, row)
            elif kind == "weight":
                # A text's label is a class of something, except for false.
                choices = [each for each in _WEIGHTS if format != "text" or each[0] != "label" or each[1] is False]
                name, value, weight = rng.choice(choices)
                turns = _turns_of(row)
                answers = [turn for turn in turns if turn.get("role", turn.get("from")) in ("gpt", "assistant")]
                calls = any("function_call" in turn.values() for turn in turns)
                if answers and not calls and "prompt" not in row and rng.random() < 0.7:
                    which = rng.randrange(len(answers))
                    answers[which][name] = value
                    expected = (which, weight)
                else:
                    row[name] = value
                    expected = (None, weight)
            else:
                for _ in range(rng.randint(1, 3)):
                    rng.choice(_ANY)(self.rows, row)
            made.append((row, kind, expected))
        file = self.folder / f"{format}-{self.rows.words}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row, _, _ in made))
        source = Source(str(file), bad_rows="skip")
        found = list(read_conversations(source))
        self.counts["rows"] += len(made)
        if [where for where, _ in found] != [f"{file}:{line + 1}" for line in range(len(made))]:
            self.fault(f"{file.name}: {len(found)} of {len(made)} rows accounted for", None)
            return
        before: Any = None
        for (row, kind, expected), (_, conversation) in zip(made, found, strict=True):
            bad = isinstance(conversation, BadRow)
            self.counts["refused" if bad else "used"] += 1
            said = None
            if not bad:
                said = [conversation.tools, [(m.role, m.content, dict(m.fields)) for m in conversation.messages]]
            if kind in ("clean", "notes") and bad:
                self.fault(f"a row without a fault is refused ({conversation})", row)
            if kind == "notes" and said != before:
                self.fault("notes change the conversation", row)
            if said is not None and (lost := _meant(row, format) - _words(said)):
                self.fault(f"dropped without a word: {sorted(lost)}", row)
            if kind == "weight":
                weights = [] if bad else [m.weight for m in conversation.messages if m.role in ("assistant", "text")]
                which, weight = expected
                got = max(weights, default=None) if which is None or bad else weights[which]
                if not bad and got != weight:
                    self.fault(f"weights {weights}, expected {weight} (answer {which})", row)
                if bad and weight:
                    self.fault(f"refused ({conversation}), expected the weight {weight}", row)
            before = said
        examples = tokenized("campaign", source, self.chat)
        self.counts["tokenised"] += len(examples)
        self.counts["skipped"] += sum(examples.skipped.values())
        if examples.rows != len(made) or len(examples) + sum(examples.skipped.values()) != len(made):
            self.fault(f"{len(examples)} examples and {examples.skipped} skipped of {len(made)} rows", None)

    def damaged(self, format: str) -> None:
        """A file with one line that is no JSON object: refused with its place."""
        from sftmix_jax.data.sources import Source, read_conversations
        from sftmix_jax.machine.errors import UserError

        row = json.dumps(self.rows.row(format))
        line = self.rows.rng.choice(
            [
                row[:-1],
                row[1:],
                f"[{row}]",
                "3",
                "null",
                "[" * 100_000,
                '{"a": 1, "a": 2}',
                f"{row} {row}",
                '{"a": ' + "9" * 5000 + "}",
                "{'a': 1}",
            ]
        )
        data = self.rows.rng.choice([line.encode(), line.encode(), b"\xff" + row.encode()])
        file = self.folder / f"damaged-{self.rows.words}.jsonl"
        file.write_bytes(row.encode() + b"\n" + data + b"\n")
        self.counts["rows"] += 2
        try:
            list(read_conversations(Source(str(file), bad_rows="skip")))
            self.fault("a damaged line is read", line[:80])
        except UserError as error:
            self.counts["refused with the file"] += 2
            if f"{file.name}:2" not in str(error):
                self.fault(f"no place in: {error}", line[:80])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="mutated rows")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SFTMIX_CACHE"] = f"{folder}/cache"
        campaign = Campaign(Path(folder), options.seed)
        tracebacks = 0
        while campaign.counts["rows"] < options.count:
            for format in _OWN:
                for run in (campaign.file, campaign.damaged, campaign.damaged):
                    try:
                        run(format)
                    except Exception:
                        tracebacks += 1
                        campaign.counts["rows"] += 1
                        print(traceback.format_exc(), file=sys.stderr)
    for fault in campaign.faults[:20]:
        print(fault)
    counts = campaign.counts
    accounted = counts["used"] + counts["refused"] + counts["refused with the file"] == counts["rows"]
    sound = accounted and not campaign.faults and not tracebacks
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    print(
        f"rows: {'PASSED' if sound else 'FAILED'}: {counts['rows']:,} rows, {tracebacks} tracebacks, "
        f"{len(campaign.faults)} faults, {'all' if accounted else 'NOT all'} accounted for"
    )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
