"""Run tasks on a model: questions → responses → scores, with everything that fixed them written down."""

import dataclasses
import functools
import itertools
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from sftmix_jax import __version__, processes, ranges, records, terminal
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.evaluation import failures, fastchat, judging, pairs, sandbox, stored
from sftmix_jax.evaluation.answers import Answers, Decoding, Model, ask, leased
from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.evaluation.judging import Judge, JudgeConfig, Rubric
from sftmix_jax.evaluation.lookup import Lookup, Unusable
from sftmix_jax.evaluation.statistics import bootstrap_mean, wilson
from sftmix_jax.evaluation.task import Explained, Metric, Question, Task, Turns, Verdict, find_task, questions_hash
from sftmix_jax.ranges import Flag, Integer, Items, Table, Text, setting, within
from sftmix_jax.sampling.methods import TEMPERATURE


@dataclasses.dataclass
class EvaluationConfig:
    # files of eval/, evaluated on the base and after each stage
    tasks: tuple[str, ...] = setting((), Items(Text(r"(?s).+", "must be the name of a task")))
    limit: int = setting(0, Integer(at_least=0))  # the first so many questions of each task; 0: all
    # task → its file, where not the task's default
    data: dict[str, str] = dataclasses.field(default_factory=dict, metadata=within(Table(Text())))
    samples: int = setting(1, Integer(at_least=1))  # of each question, for pass@k and majority votes
    temperature: float = setting(0.0, TEMPERATURE)  # 0: the task's own
    seed: int = setting(0, Integer(at_least=0))
    judge: JudgeConfig = dataclasses.field(default_factory=JudgeConfig)
    allow_unsandboxed_code: bool = setting(False, Flag())  # run model-written code even where it cannot be contained


def own_data(spec: str, tasks: Sequence[str]) -> dict[str, str]:
    """`PATH` for the one task, or `task=PATH,task=PATH` → task → its file. Raises UserError."""
    if not spec:
        return {}
    names = [find_task(name)[0].name for name in tasks]
    if "=" not in spec:
        if len(names) != 1:
            raise UserError("--data PATH is for one task; for several write --data gsm8k=PATH,humaneval=PATH")
        return {names[0]: spec}
    found = {}
    for part in spec.split(","):
        name, _, path = part.partition("=")
        if name not in names:
            raise UserError(f"--data {part}: of no task that is asked for; {did_you_mean(name, names)}")
        if not path:
            raise UserError(f"--data {part}: write task=PATH")
        found[name] = path
    return found


@dataclasses.dataclass
class Scored:
    """A verdict for each question, why its samples failed, and what a judge had to say."""

    verdicts: list[Verdict]
    judgment: dict[str, Any]  # tokens, cost, unparsed and failed judgments, flags; empty without a judge
    reasons: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # by question id, of tasks that say why


def run_task(model: Model, name: str, config: EvaluationConfig, judge: Judge | None = None) -> dict[str, Any]:
    """One task on one model → its score.json; taken from disk if the same was scored before.

    Waits while another process scores the task in the model's folder, and takes its score if it is the same.
    """
    task, version = find_task(name)
    questions = load_questions(task, config)
    _check(task, config, judge)
    decoding = _decoding(task, config)
    fixed = {
        **_fixed_by(task, version, questions, config, judge),
        **_asked_by(task, config),
        "model": model.identity,
        "template": model.chat.fingerprint,
        "stops": model.sampler.stops,
        "slots": model.sampler.slots,
    }
    folder = model.folder / "eval" / task.name
    if processes.first_says(is_scored(folder, fixed)):
        return records.score(folder / "score.json")

    def running(question: Question, text: str) -> float | None:
        cheap = task.score is not None and not task.runs_code and len(question.turns) == 1
        return _rated(task, question, [text]).get(task.metrics[0].name) if cheap else None

    with leased(model, task.name) as check_lease:
        if processes.first_says(is_scored(folder, fixed, report=True)):  # by another process meanwhile
            return records.score(folder / "score.json")
        journal = Journal(folder / "answers")
        processes.wait_for_all("answers are read")  # before process 0 writes more
        asked = ask(model, task.name, questions, decoding, journal, running)
        if not processes.is_first():
            processes.wait_for_all("scored")
            return records.score(folder / "score.json")
        scored = score(task, questions, asked.answers, config, judge, folder, model.folder.name)
        record = {
            "task": task.name,
            "ability": task.ability,
            "model": model.name,
            "metrics": summarise(task, questions, scored.verdicts, decoding.samples),
            "questions": len(questions),
            "finish_reasons": dict(asked.finish_reasons),
            **_failures(scored),
            **scored.judgment,
            "seconds": round(asked.seconds, 2),
            "fixed_by": fixed,
        }
        check_lease()
        record = write(folder, task, questions, asked.answers, scored, record)
        processes.wait_for_all("scored")
        return record


def wanted(name: str, config: EvaluationConfig) -> dict[str, Any]:
    """What a config fixes of a task's score, whatever model answers, for `is_scored`. Raises UserError."""
    task, version = find_task(name)
    questions = load_questions(task, config)
    judge = {"judge": _judged_by(task.rubric, questions, config)} if task.rubric else {}
    return {**_fixed_by(task, version, questions, config, None), **_asked_by(task, config), **judge}


def is_scored(folder: epath.Path, wanted: Mapping[str, Any], report: bool = False) -> bool:
    """Whether eval/TASK holds a score with all of `wanted` in what fixed it, and the responses that were scored.

    A damaged or changed score.json or responses.jsonl counts as none; `report` prints which file it is.
    """
    if not (folder / "score.json").exists():
        return False
    remedy = "it is written anew"
    try:
        if not _agrees(records.score(folder / "score.json", remedy)["fixed_by"], wanted):
            return False
        records.responses(folder / "responses.jsonl", remedy)
        return True
    except UserError as error:
        if report and processes.is_first():
            terminal.err(f"scored again: {error}")
        return False


def _agrees(fixed: Any, wanted: Any) -> bool:
    """Whether every entry of `wanted`, at any depth, is in `fixed`; numbers are one value as int and as float."""
    if isinstance(wanted, Mapping):
        return isinstance(fixed, Mapping) and all(_agrees(fixed.get(key), value) for key, value in wanted.items())
    return bool(fixed == (list(wanted) if isinstance(wanted, tuple) else wanted))


def score_responses(
    name: str, file: epath.Path, config: EvaluationConfig, judge: Judge | None = None, out: epath.Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score stored responses without a model → a score.json with every question's verdict; into `out` too.

    `columns` names the file's fields where its layout is not a known one (layouts.py).
    """
    task, version = find_task(name)
    ranges.check(config, "evaluation")
    everything = load_questions(task, dataclasses.replace(config, limit=0))
    questions = everything[: config.limit or None]
    _check(task, config, judge)
    answers = stored.read_responses(file, everything, task.runs_code, columns)
    samples = _samples(answers, questions)
    scored = score(task, questions, answers, config, judge, out, file.stem)
    record = {
        "task": task.name,
        "ability": task.ability,
        "model": str(file),
        "metrics": summarise(task, questions, scored.verdicts, samples),
        "questions": len(questions),
        "missing": [q.id for q in questions if q.id not in answers],
        **_failures(scored),
        **scored.judgment,
        "fixed_by": _fixed_by(task, version, questions, config, judge),
    }
    if out is not None:
        record = write(out, task, questions, answers, scored, record)
    return {**record, "verdicts": {q.id: v for q, v in zip(questions, scored.verdicts, strict=True)}}


def score_judgments(name: str, files: Sequence[epath.Path], config: EvaluationConfig) -> list[dict[str, Any]]:
    """Stored judgments, read again → a score.json for each model in the files, or pair of models; nothing is asked.

    A question's turn is the mean of its judgings. A rating that its reply does not hold, or another one than the file
    says, is listed under `unparsed` or `differing`; what the reply says counts.
    """
    task, version = find_task(name)
    if task.rubric is None:
        raise UserError(f"--judgments are of a benchmark whose answers are judged, {name} is not")
    if twice := [file for i, file in enumerate(files) if file.resolve() in [each.resolve() for each in files[:i]]]:
        raise UserError(f"--judgments: {twice[0]} is named twice; its verdicts would count twice")
    everything = load_questions(task, dataclasses.replace(config, limit=0))
    questions = everything[: config.limit or None]
    asked = Lookup(everything)
    if task.rubric.pairwise:
        return _score_pairs(task, version, files, config, questions, asked)
    records = []
    for model, judgments in fastchat.read_judgments(files).items():
        ratings: dict[str, dict[int, list[float]]] = {}
        unparsed, differing = [], []
        for judgment in judgments:
            try:
                id = asked.by_id(judgment.number)
            except Unusable as reason:
                raise UserError(f"{judgment.where}: {reason}") from None
            if not 1 <= judgment.turn <= asked.turns[id]:
                raise UserError(f"{judgment.where}: no turn {judgment.turn} in question '{id}'")
            rating = task.rubric.read(judgment.reply)
            if rating is None:
                unparsed.append(judgment.where)
            else:
                ratings.setdefault(id, {}).setdefault(judgment.turn, []).append(rating)
            if rating != judgment.score:
                differing.append(judgment.where)
        verdicts = []
        for question in questions:
            turns = {turn: statistics.fmean(given) for turn, given in ratings.get(question.id, {}).items()}
            verdicts.append(task.rubric.rate(question, [turns.get(turn + 1) for turn in range(len(question.turns))]))
        judges = sorted({judgment.judge for judgment in judgments})
        records.append({
            "task": task.name,
            "ability": task.ability,
            "model": model,
            "metrics": summarise(task, questions, verdicts),
            "questions": len(questions),
            "missing": [question.id for question in questions if question.id not in ratings],
            "stored_judgments": len(judgments),
            "unparsed": unparsed,
            "differing": differing,
            "fixed_by": {
                **_fixed_by(task, version, questions, config, None),
                "judge": {"id": ", ".join(judges), "judgments": ", ".join(file.name for file in files)},
            },
        })  # fmt: skip
    if not records:
        raise UserError(f"{', '.join(map(str, files))}: no judgments in it")
    return records


def _score_pairs(
    task: Task, version: str, files: Sequence[epath.Path], config: EvaluationConfig, questions: Sequence[Question],
    asked: Lookup,
) -> list[dict[str, Any]]:  # fmt: skip
    """Stored verdicts on pairs of answers → a score.json for each pair of models; the task combines both orders."""
    assert task.rubric is not None
    records = []
    for pair in pairs.read_stored(files, asked):
        verdicts = [task.rubric.rate(q, pair.ratings(q.id, len(q.turns))) for q in questions]
        judged = {question for question, _ in pair.found}
        records.append({
            "task": task.name,
            "ability": task.ability,
            "model": f"{pair.model} against {pair.other}",
            "metrics": summarise(task, questions, verdicts),
            "questions": len(questions),
            "missing": [question.id for question in questions if question.id not in judged],
            "stored_judgments": pair.count,
            "one_order": pair.one_order,
            "unparsed": pair.unparsed,
            "differing": pair.differing,
            "fixed_by": {
                **_fixed_by(task, version, questions, config, None),
                "judge": {"id": ", ".join(sorted(pair.judges)), "judgments": ", ".join(file.name for file in files)},
            },
        })  # fmt: skip
    return records


def _decoding(task: Task, config: EvaluationConfig) -> Decoding:
    decoding = Decoding(float(config.temperature or task.temperature), task.max_new_tokens, config.samples, config.seed)
    if decoding.samples > 1 and decoding.temperature == 0:
        raise UserError(f"{task.name}: {decoding.samples} greedy samples would all be the same; set a temperature")
    return decoding


def _fixed_by(
    task: Task, version: str, questions: Sequence[Question], config: EvaluationConfig, judge: Judge | None
) -> dict[str, Any]:
    fixed = {
        "task": task.name,
        "task_version": version,
        "data": questions_hash(questions),
        # in words where the task says it; task_version covers the code of every rule
        "extraction": {metric.name: metric.about for metric in task.metrics if metric.about},
        "limit": config.limit,
        "code_version": __version__,
    }
    if task.rubric and judge:
        fixed["judge"] = {"id": judge.name, **_judged_by(task.rubric, questions, config)}
    return fixed


def _judged_by(rubric: Rubric, questions: Sequence[Question], config: EvaluationConfig) -> dict[str, Any]:
    given = config.judge
    prompts = [prompt for q in questions for prompt in rubric.prompts(q, [""] * len(q.turns))]
    return {
        "temperature": given.temperature, "judgings": given.judgings, "max_tokens": given.max_tokens,
        "prompts": judging.prompts_hash(prompts),
    }  # fmt: skip


def _asked_by(task: Task, config: EvaluationConfig) -> dict[str, Any]:
    decoding = dataclasses.asdict(_decoding(task, config))
    return {"few_shot": 0, "decoding": decoding, "padding": "right"}  # a row of the cache is filled from its front


def _check(task: Task, config: EvaluationConfig, judge: Judge | None) -> None:
    """Raise UserError for what would only show after all answers are there."""
    if task.rubric and judge is None:
        raise UserError(
            f"{task.name} is rated by a judge: --judge openai:MODEL (any compatible endpoint: OPENAI_BASE_URL and "
            "OPENAI_API_KEY) or --judge model:DIR_OR_HUB_ID"
        )
    if task.runs_code and not sandbox.is_safe() and not config.allow_unsandboxed_code:
        raise UserError(
            f"{task.name} runs code that a model wrote, and this machine cannot contain it (standing: "
            f"{', '.join(sandbox.walls()) or 'nothing'}; needed: landlock, and namespaces or seccomp). Use a newer "
            "kernel, or accept the risk with --allow_unsandboxed_code"
        )
    if task.runs_code and processes.is_first():
        _say_walls()


@functools.cache
def _say_walls() -> None:
    """Once a process: what stands between model-written code and this machine."""
    terminal.err(f"model-written code runs behind: {', '.join(sandbox.walls()) or 'nothing'}")


def load_questions(task: Task, config: EvaluationConfig) -> list[Question]:
    """The task's questions, at most `limit`. Raises UserError, also for a config that is out of its range."""
    ranges.check(config, "evaluation")
    data = config.data.get(task.name, task.default_data)
    if not data:
        raise UserError(f"{task.name} comes with no data of its own: --data {task.name}=PATH")
    try:
        questions = task.load(data)
    except KeyError as error:
        raise UserError(f"{data}: not a file of {task.name}: a row has no column {error}") from None
    except (TypeError, AttributeError, IndexError, ValueError) as error:  # a column of another type
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{data}: not a file of {task.name}: a row cannot be read ({said})") from None
    if not questions:
        raise UserError(f"{data}: holds no questions")
    ids = Counter(question.id for question in questions)
    if twice := [id for id, count in ids.items() if count > 1]:
        raise UserError(f"{data}: {ids[twice[0]]} questions have the id '{twice[0]}'; one answer would count for all")
    for question in questions:
        if isinstance(question.turns, str) or not all(isinstance(turn, str) for turn in question.turns):
            raise UserError(f"{task.name}: the turns of '{question.id}' must be a tuple of texts")
    given = {f"{question.id}: temperature": question.temperature for question in questions}
    for where, temperature in ({f"{task.name}: temperature": task.temperature} | given).items():
        if temperature is not None and (rule := TEMPERATURE.broken(temperature)):
            raise UserError(f"{where}: {temperature}; {rule}")
    return questions[: config.limit or None]


def score(
    task: Task,
    questions: Sequence[Question],
    answers: Answers,
    config: EvaluationConfig | None = None,
    judge: Judge | None = None,
    folder: epath.Path | None = None,
    model: str = "",
) -> Scored:
    """Each question's verdict; a question without an answer is scored as empty ones (and listed as missing)."""
    count = _samples(answers, questions)
    whole = [_whole(question, answers.get(question.id, []), count) for question in questions]
    if task.rubric:
        assert judge is not None and config is not None
        return _judge(task, questions, whole, config.judge, judge, folder, model)
    def one(item: tuple[Question, list[list[str]]]) -> tuple[Verdict, list[str]]:
        question, samples = item
        verdicts = [_rated(task, question, turns) for turns in samples]
        reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Explained)]
        return task.pool(question, samples, verdicts), reasons

    if not task.runs_code:  # in this thread: some comparisons guard themselves by signals
        found = list(map(one, zip(questions, whole, strict=True)))
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(one, zip(questions, whole, strict=True)))
    reasons = {
        question.id: each for question, (_, each) in zip(questions, found, strict=True)
        if each and answers.get(question.id)
    }  # fmt: skip
    return Scored([verdict for verdict, _ in found], {}, reasons)


def _rated(task: Task, question: Question, turns: Turns) -> Verdict:
    """What the task's own code says of a sample. Raises UserError for what is no verdict."""
    assert task.score is not None
    found = task.score(question, turns)
    numbers = [value for value in found.values() if value is not None] if isinstance(found, dict) else [math.nan]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise UserError(
            f"{task.name}: its score of '{question.id}' is {str(found)[:80]}; must be a dict of finite numbers"
        )
    return found


def _samples(answers: Answers, questions: Sequence[Question]) -> int:
    """How many samples every one of these questions that has some has at least."""
    return min((len(samples) for question in questions if (samples := answers.get(question.id))), default=1)


def _failures(scored: Scored) -> dict[str, Any]:
    """What score.json says of samples that failed, where the task says why."""
    if not scored.reasons:
        return {}
    counts = failures.count(reason for reasons in scored.reasons.values() for reason in reasons)
    return {"failures": counts, "warning": failures.warning(counts)}


def _whole(question: Question, samples: Sequence[Sequence[str]], count: int = 1) -> list[list[str]]:
    """Each sample with an answer a turn; `count` empty ones where there are none."""
    return [[*given, *[""] * (len(question.turns) - len(given))] for given in (samples or [[]] * count)]


def _judge(
    task: Task,
    questions: Sequence[Question],
    answers: Sequence[list[list[str]]],
    config: JudgeConfig,
    judge: Judge,
    folder: epath.Path | None,
    model: str,
) -> Scored:
    assert task.rubric is not None
    given = list(zip(questions, answers, strict=True))
    journal = Journal((folder or epath.Path("runs") / "judged" / model) / "judgments", every=1)

    def progress(done: int, total: int) -> None:
        if terminal.is_live():
            terminal.redraw(f"{task.name}: {done}/{total} judgments")

    judged = judging.judge_all(task.rubric, judge, config, given, journal, progress)
    if terminal.is_live():
        terminal.redraw()
    ratings = judging.turn_ratings(judged.judgments)
    verdicts = []
    for question, samples in given:
        each = [
            task.rubric.rate(question, [
                ratings.get((question.id, i), {}).get(prompt + 1)
                for prompt in range(len(task.rubric.prompts(question, turns)))
            ]) for i, turns in enumerate(samples)
        ]  # fmt: skip
        verdicts.append(task.pool(question, samples, each))
    if folder is not None:
        when = time.time()
        fastchat.write_answers(folder, model, {q.id: samples for q, samples in given}, when)
        if not task.rubric.pairwise:
            fastchat.write_judgments(folder, model, judge.name, judged.judgments, when)
    return Scored(verdicts, {
        "judgments": len(judged.judgments), "judgments_known_before": judged.known, "unparsed": judged.unparsed,
        "failed": judged.failed, "flags": judging.flags(given), "judge_input_tokens": judged.input_tokens,
        "judge_output_tokens": judged.output_tokens, "judge_dollars": round(judged.dollars, 4),
    })  # fmt: skip


def summarise(
    task: Task, questions: Sequence[Question], verdicts: Sequence[Verdict], samples: int = 1
) -> dict[str, dict[str, Any]]:
    """Each metric's value, n and 95 % interval, over all questions and by group."""
    metrics = [metric for metric in task.metrics if metric.samples <= samples]
    metrics += task.of_samples(samples) if task.of_samples else []
    groups = list(dict.fromkeys(question.group for question in questions if question.group))
    for metric, (question, verdict) in itertools.product(metrics, zip(questions, verdicts, strict=True)):
        if lost := {metric.name, metric.weight or metric.name} - verdict.keys():
            given = ", ".join(verdict) or "none"
            raise UserError(f"{task.name}: its score of '{question.id}' has no '{min(lost)}', only {given}")
        value = verdict[metric.name]
        if value is not None and metric.best and not 0 <= value <= metric.best:
            raise UserError(f"{task.name}: its score of '{question.id}' has {metric.name}={value:g}; must be from 0 to "
                            f"{metric.best:g}, or the task says another `best`")  # fmt: skip
    found = {metric.name: _summary(metric, verdicts) for metric in metrics}
    for metric in metrics:
        for group in groups:
            mine = [verdict for question, verdict in zip(questions, verdicts, strict=True) if question.group == group]
            found[f"{metric.name}, {group}"] = _summary(metric, mine) | {"of": metric.name, "group": group}
    return found


def _summary(metric: Metric, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Wilson's interval for rates, bootstrap over questions for means."""
    told = [verdict for verdict in verdicts if verdict[metric.name] is not None]
    values = [float(verdict[metric.name] or 0) for verdict in told]
    weights = [float(verdict[metric.weight] or 0) if metric.weight else 1.0 for verdict in told]
    n = len(values)
    kind = {"best": metric.best, "weight": metric.weight, "geometric": metric.geometric}
    if n == 0:  # no question is about it: no number either
        return {"value": None, "n": 0, "low": None, "high": None, **kind}
    if metric.geometric:
        values = [math.log(value) for value in values]
    value = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    alike = len(set(values)) == 1  # a bootstrap of such shows no doubt at all
    binary = metric.is_rate and (alike or not metric.weight) and all(v in (0, 1) for v in values)
    low, high = wilson(round(sum(values)), n) if binary else bootstrap_mean(values, weights)
    if metric.geometric:
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    return {"value": value, "n": n, "low": low, "high": high, **kind}


def write(
    folder: epath.Path, task: Task, questions: Sequence[Question], answers: Answers, scored: Scored,
    record: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Write each question's response, what of it was compared, verdict and reasons; then score.json → its record."""
    rows = []
    for question, verdict in zip(questions, scored.verdicts, strict=True):
        said = [turns[0] if len(question.turns) == 1 and turns else turns for turns in answers.get(question.id, [])]
        row = {
            "id": question.id, "turns": question.turns, **({"group": question.group} if question.group else {}),
            **({"response": said[0]} if len(said) == 1 else {"samples": said}),
            **({"extracted": [task.extract(question, turns) for turns in answers.get(question.id, [])]}
               if task.extract else {}),
            "scores": verdict,
            **({"reasons": scored.reasons[question.id]} if question.id in scored.reasons else {}),
            "reference": dict(question.reference),
        }  # fmt: skip
        rows.append(row)
    return records.write_scored(folder, rows, record)
