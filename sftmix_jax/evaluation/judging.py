"""A judge reads answers and rates them; what it was asked and what it said is kept, and never asked for again."""

import dataclasses
import hashlib
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, Number, Text, setting
from sftmix_jax.sampling.settings import TEMPERATURE


@dataclasses.dataclass
class JudgeConfig:
    """A judge of answers: an endpoint or a model, with its limits."""

    name: str = setting(
        "",
        Text(r"(?s)(openai|model):.+|", "must be openai:MODEL or model:DIR_OR_HUB_ID"),
        "who judges: openai:MODEL (any compatible endpoint: OPENAI_BASE_URL, OPENAI_API_KEY) or model:DIR_OR_HUB_ID",
    )
    judgings: int = setting(1, Integer(at_least=1), "judgments per answer; the ratings are averaged")
    temperature: float = setting(0.0, TEMPERATURE, "of the judge's replies")
    max_tokens: int = setting(2048, Integer(at_least=1), "of a reply")
    concurrency: int = setting(8, Integer(at_least=1, at_most=1024), "requests at the same time")
    timeout: float = setting(120.0, Number(above=0, at_most=86_400), "seconds per request")
    input_price: float = setting(0.0, Number(at_least=0), "dollars per million prompt tokens, for the spending limit")
    output_price: float = setting(0.0, Number(at_least=0), "dollars per million reply tokens, for the spending limit")
    limit: float = setting(0.0, Number(at_least=0), "dollars that a run may spend; 0: no limit")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a judge is asked about one turn of one answer."""

    name: str  # of the prompt's template
    system: str
    user: str


@dataclasses.dataclass(frozen=True)
class Rubric:
    """How a benchmark has its answers judged."""

    prompts: Callable[[Any, Sequence[str]], list[Prompt]]  # (question, answers) → a prompt a turn, or more
    read: Callable[[str], float | None]  # a judge's reply → a rating; None if it holds none
    rate: Callable[[Any, Sequence[float | None]], dict[str, float | None]]  # (question, a rating a prompt) → verdict
    pairwise: bool = False  # the prompts hold two answers each, and are two a turn: ours first, the other's first


@dataclasses.dataclass(frozen=True)
class Reply:
    text: str
    input_tokens: int
    output_tokens: int


class Judge(Protocol):
    name: str  # the exact id, as it stands in the score

    def ask(
        self,
        prompts: Sequence[tuple[Prompt, int]],
        got: Callable[[int, Reply], None],
        failed: Callable[[int, str], None],
        may_ask: Callable[[], bool],
    ) -> None:
        """Judge each (prompt, number of the judging), in any order and from any thread.

        Calls `got` or `failed` (with the reason) once for each index; asks nothing more once `may_ask` says no.
        Raises UserError where no prompt could succeed.
        """


@dataclasses.dataclass(frozen=True)
class Judgment:
    """A rating of one turn of one answer, and how it came about."""

    question: str
    sample: int
    turn: int  # from 1; the number of the prompt
    judging: int
    prompt: Prompt
    reply: str
    rating: float | None  # None: the reply holds none


@dataclasses.dataclass
class Judged:
    """All judgments of a run, with what is missing from them and what they cost."""

    judgments: list[Judgment]
    failed: dict[str, str]  # question/sample/turn/judging → why there is no reply
    known: int  # replies that were on disk already
    input_tokens: int
    output_tokens: int
    dollars: float

    @property
    def unparsed(self) -> list[str]:
        """Judgments without a rating: they count as nothing, not as a number."""
        return [f"{j.question}/{j.sample}/{j.turn}/{j.judging}" for j in self.judgments if j.rating is None]


def judge_all(
    rubric: Rubric,
    judge: Judge,
    config: JudgeConfig,
    answers: Sequence[tuple[Any, Sequence[Sequence[str]]]],
    journal: Journal,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """Judge every turn of every sample of every (question, samples), `judgings` times.

    Replies are put into the journal as they come; those that it knows are not asked for. Once the spending limit is
    reached nothing more is asked, and what was not asked is listed under `failed`.
    """
    asked = [
        (question.id, sample, turn, judging, prompt)
        for question, samples in answers
        for sample, turns in enumerate(samples)
        for turn, prompt in enumerate(rubric.prompts(question, turns), 1)
        for judging in range(config.judgings)
    ]
    keys = [judgment_key(judge.name, config, prompt, judging) for *_, judging, prompt in asked]
    new = [i for i, key in enumerate(keys) if journal.get(key) is None]
    spent, failed = _Spent(config), dict[str, str]()

    def got(i: int, reply: Reply) -> None:
        spent.add(reply)
        journal.put(keys[new[i]], reply.text)
        progress(sum(journal.get(key) is not None for key in keys), len(keys))

    def lost(i: int, reason: str) -> None:
        question, sample, turn, judging, _ = asked[new[i]]
        failed[f"{question}/{sample}/{turn}/{judging}"] = reason

    def may_ask() -> bool:
        return not spent.is_over()

    try:
        judge.ask([(asked[i][4], asked[i][3]) for i in new], got, lost, may_ask)
    finally:  # what was paid for is kept, whatever happened
        journal.close()
    found = [
        Judgment(*item, reply=reply, rating=rubric.read(reply))
        for key, item in zip(keys, asked, strict=True)
        if (reply := journal.get(key)) is not None
    ]
    return Judged(found, failed, len(keys) - len(new), spent.input_tokens, spent.output_tokens, spent.dollars)


def judgment_key(judge: str, config: JudgeConfig, prompt: Prompt, judging: int) -> str:
    """All that a judgment depends on."""
    parts = (judge, float(config.temperature), config.max_tokens, prompt.system, prompt.user, judging)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """A hash of what a judge is asked, the answers aside."""
    return hashlib.sha256(repr(prompts).encode()).hexdigest()[:12]


class _Spent:
    """Tokens and money of one run."""

    def __init__(self, config: JudgeConfig):
        if config.limit and not (config.input_price or config.output_price):
            raise UserError("a spending limit needs prices: set input_price and output_price, dollars a million tokens")
        self._config = config
        self.input_tokens = self.output_tokens = 0

    @property
    def dollars(self) -> float:
        config = self._config
        return (self.input_tokens * config.input_price + self.output_tokens * config.output_price) / 1e6

    def is_over(self) -> bool:
        return bool(self._config.limit) and self.dollars >= self._config.limit

    def add(self, reply: Reply) -> None:
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens


def turn_ratings(judgments: Sequence[Judgment]) -> dict[tuple[str, int], dict[int, float]]:
    """Mean rating over the judgings, by (question, sample) and turn; turns without any rating are left out."""
    ratings: dict[tuple[str, int], dict[int, list[float]]] = {}
    for j in judgments:
        if j.rating is not None:
            ratings.setdefault((j.question, j.sample), {}).setdefault(j.turn, []).append(j.rating)
    return {key: {turn: statistics.fmean(values) for turn, values in own.items()} for key, own in ratings.items()}


_DELIMITER = re.compile(r"(\[The (?:Start|End) of [^\]]*?)(\])|(<\|The (?:Start|End) of [^|]*?)(\|>)")
_ADDRESSES_THE_JUDGE = re.compile(
    r"\[\[\s*(?:\d|rating|A\]|B\]|C\])|\[The (?:Start|End) of|<\|The (?:Start|End) of"
    r"|(?:ignore|disregard|forget)\b.{0,40}\b(?:instruction|prompt|above)|\brat(?:e|ing)\b.{0,30}\b10\b",
    re.IGNORECASE | re.DOTALL,
)


def delimited(template: str, answers: Sequence[str]) -> str:
    """The template with a nonce in its delimiters, so that no answer can close its own frame.

    The nonce is a hash of the answers: the same answers are judged by the same prompt (and paid for once), and no
    answer can hold its own hash.
    """
    nonce = hashlib.sha256("\0".join(answers).encode(errors="surrogatepass")).hexdigest()[:12]  # halves of pairs, too
    return _DELIMITER.sub(lambda m: f"{m[1] or m[3]} {nonce}{m[2] or m[4]}", template)


def flags(answers: Sequence[tuple[Any, Sequence[Sequence[str]]]]) -> dict[str, list[str]]:
    """Answers that a judge's rating may be wrong about: empty, the same everywhere, or talking to the judge."""
    every = [
        (f"{question.id}/{sample}/{turn}", text)
        for question, samples in answers
        for sample, turns in enumerate(samples)
        for turn, text in enumerate(turns, 1)
    ]
    known: dict[str, int] = {}
    for _, text in every:
        known[text.strip()] = known.get(text.strip(), 0) + 1
    constant = {text for text, count in known.items() if text and count > max(2, len(every) // 4)}
    return {
        "empty": [where for where, text in every if not text.strip()],
        "constant": [where for where, text in every if text.strip() in constant],
        "speaks to the judge": [where for where, text in every if _ADDRESSES_THE_JUDGE.search(text)],
    }
