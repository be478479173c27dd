"""Verdicts on pairs of answers: how both orders become one, and the verdicts that files of other systems hold.

AlpacaEval  {"instruction": …, "generator_1": …, "generator_2": …, "preference": 1}: 2 for the second output, 1.5 or 0
            for a tie, numbers between for weighted ones; its annotations.json. The model is the second generator.
QLoRA       {"question_id" or "message_id": …, "answer1_id": …, "answer2_id": …, "text": …, "score": 1}: 3 is a tie, a
            list holds a rating for each answer, -1 or null is none. The model is answer 1 of a question's first row.
FastChat    {"question_id": …, "model_1": …, "model_2": …, "turn": 1, "g1_winner": …, "g2_winner": …}: both orders, won
            by model_1, model_2 or tie; its model_judgment/*_pair.jsonl. The model is model_1.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax.data.readers import json_rows
from sftmix_jax.evaluation.lookup import Lookup, Unusable
from sftmix_jax.machine.errors import UserError

_HALF_WRITTEN = "a half-written last line can be deleted, its judgment then counts as missing"
NOT_JUDGED = math.nan  # in the place of a rating: nobody was asked for it, as for the other order in many files


def read(reply: str) -> float | None:
    """`[[A]]` → 1, `[[B]]` → -1, `[[C]]` → 0: what the first answer is worth. None if the reply holds no verdict."""
    found = re.search(r"\[\[([ABC])\]\]", reply)
    return {"A": 1.0, "B": -1.0, "C": 0.0}[found.group(1)] if found else None


def rate(ratings: Sequence[float | None]) -> dict[str, float | None]:
    """Ratings of the first answer, two for each turn: with ours first, with the other's first → a question's verdict.

    A turn is won if both orders say so, a tie if they disagree. An order says what most of its judgings do. A turn
    counts as nothing if one order has no rating; if one was never asked for (`NOT_JUDGED`) the other one decides, and
    nothing is known of a disagreement.
    """
    worth, disagreed = [], []
    for ours_first, other_first in zip(ratings[::2], ratings[1::2], strict=True):
        if ours_first is None or other_first is None:
            continue
        known = [rating for rating in (ours_first, -other_first) if not math.isnan(rating)]
        if len(known) == 2:
            said = {_sign(rating) for rating in known}
            disagreed.append(len(said) > 1)
            known = list(said) if len(said) == 1 else [0.0]
        if known:
            worth.append((1 + known[0]) / 2)
    return {
        "wins": statistics.fmean(worth) if worth else None,
        "disagreement": statistics.fmean(disagreed) if disagreed else None,
    }


class Stored(NamedTuple):
    """One stored verdict on two answers to a question."""

    question: str
    turn: int  # from 1
    first: str  # whose answer stood first
    second: str
    rating: float | None  # of the first answer, from -1 to 1; None: the judge gave none
    model: str  # which of the two is ours, if the file begins with this row
    judge: str
    said: float | None = None  # what the judge's reply says, where the file holds it
    part: str = ""  # of the row


@dataclasses.dataclass
class Verdicts:
    """All stored verdicts on one pair of models."""

    model: str
    other: str
    count: int = 0
    judges: set[str] = dataclasses.field(default_factory=set)
    unparsed: list[str] = dataclasses.field(default_factory=list)  # places of verdicts without a rating
    differing: list[str] = dataclasses.field(default_factory=list)  # where the reply says another than the file
    # question, turn → with ours first, with the other's first → the rating of the first answer of every judging
    found: dict[tuple[str, int], tuple[list[float | None], list[float | None]]] = dataclasses.field(
        default_factory=dict
    )
    weighted: set[tuple[str, int]] = dataclasses.field(default_factory=set)  # those with a rating such as 0.7

    def add(self, where: str, stored: Stored) -> None:
        """Counts a verdict. Raises Unusable for a turn with both orders of which one is weighted."""
        key = (stored.question, stored.turn)
        orders = self.found.setdefault(key, ([], []))
        orders[stored.first != self.model].append(stored.rating)
        self.count += 1
        self.judges.add(stored.judge)
        if stored.rating is None:
            self.unparsed.append(where + stored.part)
        elif stored.rating not in (-1, 0, 1):
            self.weighted.add(key)
        if stored.said is not None and stored.said != stored.rating:
            self.differing.append(where + stored.part)
        if key in self.weighted and all(orders):
            raise Unusable("both orders were judged and one is weighted; only wins, losses and ties can be compared")

    def ratings(self, question: str, turns: int) -> list[float | None]:
        """What `rate` takes: means over the judgings of an order."""
        out: list[float | None] = []
        for turn in range(1, turns + 1):
            orders = self.found.get((question, turn), ([], []))
            out += [_mean(order) if order or not any(orders) else NOT_JUDGED for order in orders]
        return out

    @property
    def one_order(self) -> int:
        """How many turns of questions were judged in one order alone."""
        return sum(not all(orders) for orders in self.found.values())


def _mean(ratings: Sequence[float | None]) -> float | None:
    given = [rating for rating in ratings if rating is not None]
    return statistics.fmean(given) if given else None


def read_stored(files: Sequence[epath.Path], asked: Lookup) -> list[Verdicts]:
    """The verdicts of all files, by pair of models. Raises UserError with file and line for one that cannot be used."""
    pairs: dict[frozenset[str], Verdicts] = {}
    answers: Answers = {}
    for file in files:
        for where, row in json_rows(file, _HALF_WRITTEN):
            try:
                for stored in _read(row, asked, answers):
                    if stored.first == stored.second:
                        raise Unusable(f"both answers are of '{stored.first}', so that no order is known")
                    other = stored.second if stored.model == stored.first else stored.first
                    pair = pairs.setdefault(frozenset((stored.first, stored.second)), Verdicts(stored.model, other))
                    pair.add(where, stored)
            except Unusable as reason:
                raise UserError(f"{where}: {reason}") from None
    if not pairs:
        raise UserError(f"{', '.join(map(str, files))}: no judgments in it")
    return list(pairs.values())


# question → its two answers' ids in the order of the first row about it, and how many rows there were
Answers = dict[str, tuple[tuple[str, str], int]]


def _read(row: Any, asked: Lookup, answers: Answers) -> list[Stored]:
    fields = row if isinstance(row, dict) else {}
    found = [name for name, (needed, _) in _LAYOUTS.items() if fields.keys() >= set(needed)]
    if len(found) > 1:
        raise Unusable(f"is a verdict in several layouts ({', '.join(found)}); keep the fields of one")
    if found:
        return _LAYOUTS[found[0]][1](fields, asked, answers)
    known = ", ".join(f"{name} {{{', '.join(needed)}}}" for name, (needed, _) in _LAYOUTS.items())
    its = f"its fields are {', '.join(fields)[:200] or 'none'}" if fields or row == {} else "this is no object"
    raise Unusable(f"must be a verdict in a known layout, but {its}; known: {known}")


def _alpaca_eval(row: dict[str, Any], asked: Lookup, answers: Answers) -> list[Stored]:
    question = asked.by_text(row["instruction"], whole=True, once=True)
    first, second = (_name(row, f"generator_{i}") for i in (1, 2))
    given = row["preference"]
    rating = None
    if given is not None and not (isinstance(given, float) and math.isnan(given)):
        if not _is_number(given) or not (given == 0 or 1 <= given <= 2):
            raise Unusable(f"its preference must be a number from 1 to 2, or 0 for a tie, not {_shown(given)}")
        rating = 3.0 - 2.0 * (given or 1.5)
    return [Stored(question, 1, first, second, rating, second, str(row.get("annotator", "unnamed")))]


def _qlora(row: dict[str, Any], asked: Lookup, answers: Answers) -> list[Stored]:
    keys = [key for key in ("question_id", "message_id") if key in row]
    if len(keys) != 1:
        raise Unusable("must have a question_id or a message_id")
    question = asked.by_id(row[keys[0]])
    ids = (_name(row, "answer1_id"), _name(row, "answer2_id"))
    known, met = answers.get(question, (ids, 0))
    if ids not in (known, known[::-1]):
        raise Unusable(f"other answers to '{question}' than before, {ids[0]} and {ids[1]}; score one pair at a time")
    answers[question] = (known, met + 1)
    # Two models that wrote the same text have one id: then the rows about it are of one order and the other in turn.
    turned = met % 2 == 1 if ids[0] == ids[1] else ids != known
    names = ("answer 2", "answer 1") if turned else ("answer 1", "answer 2")
    judge = f"reviewer {row.get('reviewer_id', 'unnamed')}"
    score, last = row["score"], str(row.get("text", "")).strip().rpartition("\n")[2].strip()
    if isinstance(score, list):
        if len(score) != 2 or not all(rating is None or _is_number(rating) for rating in score):
            raise Unusable(f"its score must be 1, 2, 3 or two ratings, all numbers, not {_shown(score)}")
        none = any(rating in (None, -1) or math.isnan(rating) for rating in score)
        rating = None if none else _sign(score[0] - score[1])
        return [Stored(question, 1, *names, rating, "answer 1", judge)]
    if not (score is None or _is_number(score)) or score not in _THREE:
        raise Unusable(f"its score must be 1, 2, 3 or two ratings, all numbers, not {_shown(score)}")
    said = _THREE.get(int(last)) if last in ("1", "2", "3") else None
    return [Stored(question, 1, *names, _THREE[score], "answer 1", judge, said)]


_THREE: dict[float | None, float | None] = {1: 1.0, 2: -1.0, 3: 0.0, -1: None, None: None}


def _fastchat(row: dict[str, Any], asked: Lookup, answers: Answers) -> list[Stored]:
    question = asked.by_id(row["question_id"])
    models = (_name(row, "model_1"), _name(row, "model_2"))
    if row["turn"] not in range(1, asked.turns[question] + 1) or isinstance(row["turn"], bool):
        raise Unusable(f"its turn must be 1 to {asked.turns[question]}, not {_shown(row['turn'])}")
    judge = str(row["judge"][0] if isinstance(row.get("judge"), list) and row["judge"] else "unnamed")
    found = []
    for game, (first, second) in (("g1", models), ("g2", models[::-1])):
        worth = {"model_1": 1.0, "model_2": -1.0, "tie": 0.0, "error": None}
        winner = row[f"{game}_winner"]
        if not isinstance(winner, str) or winner not in worth:
            raise Unusable(f"its {game}_winner must be one of {', '.join(worth)}, not {str(winner)[:60]}")
        rating = worth[winner]
        if rating and game == "g2":
            rating = -rating
        said = read(str(row.get(f"{game}_judgment", "")))
        found.append(Stored(question, row["turn"], first, second, rating, models[0], judge, said, f" {game}"))
    return found


def _name(row: dict[str, Any], field: str) -> str:
    if not isinstance(row[field], str | int) or isinstance(row[field], bool):
        raise Unusable(f"its {field} must be a text, not {str(row[field])[:60]}")
    return str(row[field])


def _shown(value: Any) -> str:
    """A value as it stands in the file, so that a text is seen to be one."""
    return json.dumps(value, ensure_ascii=False)[:60]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sign(value: float) -> float:
    return float((value > 0) - (value < 0))


# name → the fields that a row needs, and what reads it
_LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], Lookup, Answers], list[Stored]]]] = {
    "AlpacaEval": (("instruction", "generator_1", "generator_2", "preference"), _alpaca_eval),
    "QLoRA": (("answer1_id", "answer2_id", "score"), _qlora),
    "FastChat": (("question_id", "model_1", "model_2", "turn", "g1_winner", "g2_winner"), _fastchat),
}
