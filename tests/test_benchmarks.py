"""The benchmarks beyond GSM8K and HumanEval, several samples, other systems' files, and evaluations that resume."""

import dataclasses
import json
import math
import random
from itertools import combinations

import pytest
from conftest import ROOT
from etils import epath

from sftmix_jax.data.messages import Message
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation import contamination, runner
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.evaluation.statistics import pass_at_k
from sftmix_jax.evaluation.summary import summarise
from sftmix_jax.evaluation.task import Question, find_task, rule_files
from sftmix_jax.experiment.opening import Opening, open_model
from sftmix_jax.machine.errors import UserError

TINY = EvaluationConfig(data={"tiny_math": "tiny:4"})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return epath.Path(path)


def test_responses_of_other_systems_are_read_as_they_are(tmp_path):
    """The same four answers in five layouts get the same verdicts, row by row."""
    questions = find_task("tiny_math")[0].load("tiny:4")
    texts = [f"#### {q.reference['result'] + (i % 2)}" for i, q in enumerate(questions)]
    layouts = {
        "ours": [{"id": q.id, "response": t} for q, t in zip(questions, texts, strict=True)],
        "stored": [{"id": q.id, "samples": [t], "scores": {}} for q, t in zip(questions, texts, strict=True)],
        "fastchat": [
            {"question_id": i, "model_id": "m", "choices": [{"index": 0, "turns": [t]}]} for i, t in enumerate(texts)
        ],
        "evalplus": [{"task_id": q.id, "solution": t} for q, t in zip(questions, texts, strict=True)],
        "lm_eval": [
            {"doc_id": i, "doc": {}, "resps": [[t]], "filter": f}
            for f in ("strict-match", "flexible-extract")
            for i, t in enumerate(texts)
        ],
    }
    for name, rows in layouts.items():
        record = runner.score_responses("tiny_math", write(tmp_path / f"{name}.jsonl", rows), TINY)
        assert [v["strict"] for v in record["verdicts"].values()] == [1, 0, 1, 0], name
        assert record["missing"] == []


def test_pass_at_k_is_the_share_of_draws_with_a_pass():
    """Against counting every draw of k from n."""
    for n, passed, k in ((5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (7, 1, 6)):
        draws = [any(i < passed for i in draw) for draw in combinations(range(n), k)]
        assert pass_at_k(n, passed, k) == pytest.approx(sum(draws) / len(draws))
    with pytest.raises(ValueError, match="needs at least 3"):
        pass_at_k(2, 1, 3)


def test_several_samples_are_pooled(tmp_path):
    questions = [{"question": "q", "answer": "#### 7"}, {"question": "r", "answer": "#### 5"}]
    rows = [
        {"id": "gsm8k/0", "samples": ["#### 7", "it is 7", "#### 8"]},
        {"id": "gsm8k/1", "samples": ["6", "6", "5"]},
    ]
    config = EvaluationConfig(data={"gsm8k": str(write(tmp_path / "q.jsonl", questions))})
    record = runner.score_responses("gsm8k", write(tmp_path / "r.jsonl", rows), config)
    assert record["verdicts"]["gsm8k/0"] == {"strict": 1 / 3, "flexible": 2 / 3, "majority": 1.0}
    assert record["verdicts"]["gsm8k/1"] == {"strict": 0.0, "flexible": 1 / 3, "majority": 0.0}
    assert record["metrics"]["majority"]["value"] == 0.5 and record["metrics"]["flexible"]["value"] == 0.5


def test_other_word_problems_and_their_columns(tmp_path):
    rows = {
        "gsm_hard": {"input": "q", "target": 3431580.0},
        "svamp": {"Body": "There are 8.", "Question": "How many?", "Answer": "8.0"},
        "asdiv": {"body": "b", "question": "q", "answer": "9 (apples)"},
        "mawps": {"sQuestion": "q", "lSolutions": [27.0]},
    }
    for name, row in rows.items():
        (question,) = find_task(name)[0].load(str(write(tmp_path / f"{name}.jsonl", [row])))
        gold = question.reference["answer"]
        assert gold in (3431580.0, 8, 9, 27) and question.id == f"{name}/0"
        assert find_task(name)[0].score(question, [f"so it is {gold:,}"])["flexible"] == 1
    with pytest.raises(UserError, match="no columns of a word problem"):
        find_task("svamp")[0].load(str(write(tmp_path / "x.jsonl", [{"a": 1}])))


@pytest.mark.parametrize(
    ("response", "boxed", "flexible"),
    [
        (r"so \boxed{\frac12}", 1, 1),
        (r"\boxed{0.5}", 1, 1),
        (r"\boxed{2}", 0, 0),
        ("The answer is $1/2$.", 0, 1),
        ("", 0, 0),
    ],
)
def test_math_answers_are_compared_by_meaning(response, boxed, flexible):
    pytest.importorskip("math_verify")
    question = Question("math/0", ("q",), {"solution": r"Half of one is $\boxed{\frac{1}{2}}$."})
    assert find_task("math")[0].score(question, [response]) == {"boxed": boxed, "flexible": flexible}


def test_ifeval_by_hand(shared):
    pytest.importorskip("lm_eval")
    task, _ = find_task("ifeval")
    questions = task.load(str(shared / "data" / "eval" / "ifeval_input.jsonl"))
    assert len(questions) == 541
    verdicts = [task.score(question, ["Sure.\nAll of it is here."]) for question in questions]
    told = [verdict["instructions"] for verdict in verdicts if verdict["instructions"] is not None]
    # without NLTK's punkt_tab 64 prompts are left out; of those that remain many ask for no comma, and there is none
    assert len(told) in (541, 541 - 64) and 0.1 < sum(v["prompt strict"] or 0 for v in verdicts) / len(told) < 0.5
    kinds = ["punctuation:no_comma", "change_case:english_lowercase"]
    reference = {"key": 1, "prompt": "p", "instruction_id_list": kinds, "kwargs": [{}, {}]}
    found = task.score(Question("ifeval/1", ("p",), reference), ["Sure:\nno comma and all of it is in lower case"])
    assert found == {
        "instructions": 2,
        "prompt strict": 0,
        "instruction strict": 0.5,
        "prompt loose": 1,
        "instruction loose": 1,
    }
    asked = [Question("ifeval/1", ("p",), reference)] * 2
    metrics = summarise(task, asked, [found, {**found, "instructions": 6.0, "instruction strict": 1.0}])
    assert metrics["instruction strict"]["value"] == pytest.approx((2 * 0.5 + 6 * 1.0) / 8)
    none = summarise(task, asked, [{**found, "instruction strict": 0.0}] * 2)["instruction strict"]
    assert none["low"] == 0 and none["high"] > 0.5  # two questions that failed are no proof


def test_an_instruction_that_lm_eval_draws_a_part_of_is_scored_the_same_every_time():
    pytest.importorskip("lm_eval")
    wanted = {"letter": "!", "let_frequency": 3, "let_relation": "at least"}  # no letter: one is drawn
    reference = {"key": 7, "prompt": "p", "instruction_id_list": ["keywords:letter_frequency"], "kwargs": [wanted]}
    question = Question("ifeval/7", ("p",), reference)
    answer, task = "aaa bbb ccc ddd eee fff ggg hhh", find_task("ifeval")[0]
    random.seed(0)
    drawn = random.random()
    random.seed(0)
    assert len({str(task.score(question, [answer])) for _ in range(20)}) == 1
    assert random.random() == drawn  # whatever else draws is left alone


def test_a_task_s_version_covers_every_file_of_its_rules_and_its_packages(tmp_path, monkeypatch):
    gsm8k = {file.name for file in rule_files(ROOT / "eval" / "gsm8k.py", False)}
    assert gsm8k == {"gsm8k.py", "numbers.py", "replies.py"}
    code = {file.name for file in rule_files(ROOT / "eval" / "humaneval.py", True)}
    assert {"code.py", "programs.py", "statistics.py", "sandbox.py", "judge.py", "wire.py"} <= code
    (tmp_path / "mine.py").write_text(
        "import rules\nfrom sftmix_jax.evaluation.task import Metric, Task\n"
        "TASK = Task('mine', None, (Metric('m'),), '', packages=('grain', 'no-such-package'))\n"
    )
    (tmp_path / "rules.py").write_text("from words import word")
    (tmp_path / "words.py").write_text("word = 1")
    monkeypatch.syspath_prepend(tmp_path)
    versions = [find_task(str(tmp_path / "mine.py"))[1]]
    assert find_task(str(tmp_path / "mine.py"))[1] == versions[0]
    (tmp_path / "words.py").write_text("word = 2")
    versions.append(find_task(str(tmp_path / "mine.py"))[1])
    monkeypatch.setattr("sftmix_jax.evaluation.task.metadata.version", lambda package: "9.9")
    versions.append(find_task(str(tmp_path / "mine.py"))[1])
    assert len(set(versions)) == 3


def test_an_unknown_kind_of_instruction_is_refused_before_anything_is_asked(tmp_path):
    pytest.importorskip("lm_eval")
    row = {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}
    with pytest.raises(UserError, match=r"p\.jsonl:1: no kind of instruction .* did you mean 'punctuation:no_comma'"):
        find_task("ifeval")[0].load(str(write(tmp_path / "p.jsonl", [row])))


def test_evalplus_rows_are_tested_against_their_canonical_solution(tmp_path):
    row = {
        "task_id": "HumanEval/0",
        "prompt": "def f(x):\n    'Half.'\n",
        "canonical_solution": "    return x / 2\n",
        "entry_point": "f",
        "base_input": [[1], [4]],
        "plus_input": [[-3]],
        "atol": 1e-6,
    }
    task, _ = find_task("humaneval_plus")
    (question,) = task.load(str(write(tmp_path / "p.jsonl", [row])))
    assert task.score(question, ["    return x * 0.5\n"])["pass@1"] == 1
    assert task.score(question, ["    return abs(x) / 2\n"])["pass@1"] == 0


def test_mbpp_runs_its_tests(tmp_path):
    row = {"task_id": 11, "text": "Double it.", "test_list": ["assert twice(2) == 4", "assert twice(-1) == -2"]}
    task, _ = find_task("mbpp")
    (question,) = task.load(str(write(tmp_path / "p.jsonl", [row])))
    assert task.score(question, ["```python\ndef twice(x):\n    return 2 * x\n```"])["pass@1"] == 1
    assert task.score(question, ["```python\ndef twice(x):\n    return 4\n```"])["pass@1"] == 0


def test_mmlu_takes_the_likeliest_letter(tmp_path):
    row = {"question": "2 + 2?", "subject": "abstract_algebra", "choices": ["3", "4", "5", "6"], "answer": 1}
    model = open_model("tiny", Opening(slots=4), epath.Path(tmp_path / "m"))
    config = EvaluationConfig(data={"mmlu": str(write(tmp_path / "q.jsonl", [row]))})
    runner.run_task(model, "mmlu", config)
    (stored,) = map(json.loads, (tmp_path / "m" / "eval" / "mmlu" / "responses.jsonl").read_text().splitlines())
    tokenizer = model.chat.tokenizer
    prompt = model.chat.prompt([Message("user", stored["turns"][0])])
    texts = {letter: tokenizer.decode_whole(prompt) + f"{letter}<|im_end|>" for letter in "ABCD"}  # as chatml has it
    answers = {letter: tokenizer.encode(text)[len(prompt) :] for letter, text in texts.items()}
    found = {letter: model.sampler.log_likelihood([(prompt, answer)])[0][0] for letter, answer in answers.items()}
    assert stored["response"] == max(found, key=found.__getitem__)


def test_perplexity_by_domain_is_that_of_transformers(tmp_path, shared):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    source = str(shared / "models" / "stories260k")
    told = {"math": ("two and two?", "it was four"), "code": ("write it", "Once upon a time there was a dog.")}
    for domain, (prompt, completion) in told.items():
        write(tmp_path / f"{domain}.jsonl", [{"prompt": prompt, "completion": completion}] * 2)
    model = open_model(source, Opening(template="chatml"), epath.Path(tmp_path / "m"))
    config = EvaluationConfig(data={"perplexity": str(tmp_path / "*.jsonl")})
    metrics = runner.run_task(model, "perplexity", config)["metrics"]

    reference, tokenizer = AutoModelForCausalLM.from_pretrained(source), model.chat.tokenizer
    sums = {}
    for domain, (prompt, completion) in told.items():
        # <s>: what this tokenizer puts before a text
        head = f"<s><|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        before, whole = (tokenizer.encode(text) for text in (head, f"{head}{completion}<|im_end|>"))
        assert whole[: len(before)] == before
        with torch.no_grad():
            loss = reference(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
        mine = [-loss[i - 1, whole[i]].item() for i in range(len(before), len(whole))]
        sums[domain] = (sum(mine), len(mine))
        assert metrics[f"perplexity, {domain}"]["value"] == pytest.approx(math.exp(sum(mine) / len(mine)), rel=1e-4)
        assert metrics[f"perplexity, {domain}"]["n"] == 2
    total, tokens = (sum(values) for values in zip(*sums.values(), strict=True))
    assert metrics["perplexity"]["value"] == pytest.approx(math.exp(total / tokens), rel=1e-4)


def test_questions_that_stand_in_the_training_data_are_found_once(tmp_path, monkeypatch):
    """Two experiments whose mathematics is not the same: both are looked through, and only when something changed."""
    leaked = "Ann buys seven red pens and nine blue pens for her three good friends, how many pens?"
    other = {"question": "What is left of ten after four?", "answer": "#### 6"}
    rows = [{"question": leaked, "answer": "#### 16"}, other]
    questions = str(write(tmp_path / "test.jsonl", rows))
    clean = [{"question": "Add two and two.", "answer": "#### 4"}]
    copied = [{"question": f"Listen: {leaked}", "answer": "#### 16"}]
    (tmp_path / "w" / "experiments").mkdir(parents=True)
    for name, own in (("a", copied), ("b", clean)):
        domains = {"math": dataclasses.asdict(Source(str(write(tmp_path / f"{name}.jsonl", own))))}
        (tmp_path / "w" / "experiments" / f"{name}.json").write_text(
            json.dumps({"experiment": {"domains": domains}, "base": "b", "stages": {}})
        )
    config = EvaluationConfig(tasks=("gsm8k",), data={"gsm8k": questions})
    workdir = epath.Path(tmp_path / "w")
    found = contamination.measure(workdir, config)["gsm8k"]
    assert (found["of"], found["questions"]) == (2, {"math": ["gsm8k/0"]})
    with monkeypatch.context() as without:
        without.delattr(contamination.overlap, "questions_seen")
        assert contamination.measure(workdir, config)["gsm8k"] == found
    write(tmp_path / "a.jsonl", clean)
    assert contamination.measure(workdir, config)["gsm8k"]["questions"] == {"math": []}


def test_a_journal_keeps_what_it_was_given(tmp_path):
    folder = epath.Path(tmp_path / "journal")
    first = Journal(folder, every=2)
    for i in range(5):
        first.put(str(i), {"text": i})
    assert len(Journal(folder)) == 4  # as if killed: the fifth was not written yet
    first.close()
    again = Journal(folder)
    assert len(again) == 5 and again.get("4") == {"text": 4} and again.get("5") is None
    assert len(list(folder.glob("*"))) == 1


def test_a_changed_answer_in_a_journal_is_asked_again(tmp_path, capsys):
    Journal(epath.Path(tmp_path), every=1).put("1", {"text": "\ud800 four", "n": (1, 2)})
    file = tmp_path / "000000.jsonl"
    assert Journal(epath.Path(tmp_path)).get("1") == {"text": "\ud800 four", "n": [1, 2]}
    file.write_text(file.read_text().replace("four", "five"))
    assert Journal(epath.Path(tmp_path)).get("1") is None
    assert "000000.jsonl:1: truncated or changed; what stood there is asked again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"key": "1", "row": {"te', "000000.jsonl:2: truncated or changed; what"),
        ("[]\n\xff\n" + "[" * 99_999, "000000.jsonl:2: truncated or changed, and 2 more lines; what"),
        ('{"key": "1"}', "000000.jsonl:2: "),
        ('{"key": 1, "row": "text"}', "000000.jsonl:2: "),
        ('{"key": "1", "row": "text"}', "000000.jsonl:2: "),
        ('{"key": "1", "row": "text", "digest": "0123456789ab"}', "000000.jsonl:2: "),
    ],
)
def test_what_a_damaged_line_of_a_journal_held_is_asked_again(tmp_path, capsys, line, said):
    folder = epath.Path(tmp_path)
    Journal(folder, every=1).put("0", "zero")
    with (tmp_path / "000000.jsonl").open("ab") as file:
        file.write(line.encode("latin-1"))
    journal = Journal(folder)
    assert (journal.get("0"), journal.get("1")) == ("zero", None)
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"{folder / said}") and told.endswith("what stood there is asked again")
    journal.put("1", {"text": "one"})
    journal.close()
    assert Journal(folder).get("1") == {"text": "one"} and len(Journal(folder)) == 2
    assert not capsys.readouterr().err  # the damaged line is gone


def test_an_evaluation_that_was_killed_asks_only_for_what_is_missing(tmp_path, monkeypatch):
    model = open_model("tiny", Opening(slots=4), epath.Path(tmp_path / "m"))
    config = EvaluationConfig(data={"tiny_math": "tiny:12"})
    whole = runner.run_task(dataclasses.replace(model, folder=epath.Path(tmp_path / "w")), "tiny_math", config)
    asked = []
    generate = model.sampler.generate

    def dies(requests, finished):
        asked.append(len(requests))
        done = []

        def some(index, response):
            finished(index, response)
            done.append(index)
            if len(asked) == 1 and len(done) == 5:
                raise KeyboardInterrupt

        return generate(requests, some)

    monkeypatch.setattr(model.sampler, "generate", dies)
    monkeypatch.setattr("sftmix_jax.evaluation.journal._SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        runner.run_task(model, "tiny_math", config)
    assert runner.run_task(model, "tiny_math", config)["metrics"] == whole["metrics"]
    assert asked == [12, 7]
    runner.run_task(model, "tiny_math", dataclasses.replace(config, data={"tiny_math": "tiny:14"}))
    assert asked == [12, 7, 2]  # two new questions
