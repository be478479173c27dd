"""An experiment that cannot be trained to its end is refused before its first stage is trained."""

import dataclasses
import importlib.util
import json
import re
import shutil
from fractions import Fraction

import pytest
from conftest import ROOT
from etils import epath
from test_sources import write_lines

from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import checks, strategies
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.experiment.stages import TINY, Resolved
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies import jobs
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.tiny import domains
from sftmix_jax.training.optimizer import OptimizerConfig

BATCH = BatchConfig(batch_size=8, seq_len=160)


def own_files(tmp_path, rows: dict[str, int], k: str) -> Experiment:
    spec = importlib.util.spec_from_file_location("own_files", ROOT / "configs" / "own_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(Fraction(k))
    for name, count in rows.items():
        file = tmp_path / f"{name}.jsonl"
        if not file.exists():
            write_lines(file, domains.train_rows(name, count))
        config.domains[name].path = str(file)
    config.template = "chatml"
    for stage in config.stages.values():
        stage.batch = dataclasses.replace(BATCH)
    config.check()
    return config


def two_stages(**second) -> Experiment:
    """A first stage that can be trained, and a second one with these fields."""
    first = Stage(mixture={"math": Share(fraction=1.0), "code": Share(count=50)}, epochs=1, batch=BATCH)
    stages = {"first": first, "second": dataclasses.replace(first, **second)}
    return Experiment(
        "two",
        {name: Source(f"tiny:{name},rows=100", validation_rows=10) for name in ("math", "code", "general")},
        stages,
        template="chatml",
    )


def test_a_replay_of_no_row_is_refused_before_anything_is_written_and_the_k_it_names_works(tmp_path):
    rows = {"math": 200, "code": 180, "general": 40}
    said = r"stage 'general': code: .* 1/256 of 180 rows .* needs at least 256 rows(.|\n)*stage 'general': math"
    with pytest.raises(UserError, match=said) as refused:
        experiments.run(own_files(tmp_path, rows, "1/256"), epath.Path(tmp_path / "workdir"))
    assert not (tmp_path / "workdir").exists()
    k = re.search(r"smallest k that works is (\S+),", str(refused.value))[1]
    assert k == "1/180"
    resolved = Resolved(own_files(tmp_path, rows, k))
    second = resolved.chain()[1]
    assert {
        n: a["used"] for n, a in resolved.plan(second.stage)[0].rows_account(resolved.plan(second.stage)[1], 0).items()
    } == {"general": 40, "code": 1, "math": 1}


def test_a_study_writes_nothing_while_one_of_its_runs_cannot_be_trained(tmp_path):
    good, bad = two_stages(), two_stages(mixture={"general": Share(count=91)})
    bad.name = "bad"
    with pytest.raises(UserError, match=r"stage 'second': general: .* asks for 91 rows, there are 90"):
        jobs.make_jobs(Study("s", "?", [Run(good, {}), Run(bad, {})]), epath.Path(tmp_path / "workdir"))
    assert not (tmp_path / "workdir").exists()


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"mixture": {"general": Share(weight=1.0)}}, "need a budget"),
        ({"mixture": {"general": Share(weight=1.0), "math": Share(count=3)}, "budget": 100}, "do not mix"),
        ({"optimizer": OptimizerConfig(name="adamwe")}, "did you mean 'adamw'"),
        ({"optimizer": OptimizerConfig(schedule="cosin")}, "did you mean 'cosine'"),
        ({"optimizer": OptimizerConfig(state="bf16")}, r"optimizer\.state"),
        ({"optimizer": OptimizerConfig(options={"b3": 1})}, "no argument 'b3'"),
        ({"optimizer": OptimizerConfig(name="sgd"), "carry_optimizer": True}, "keeps another state"),
        ({"optimizer": OptimizerConfig(clip_norm=0), "carry_optimizer": True}, "keeps another state"),
        ({"batch": BatchConfig(8, 1000)}, "model was made for 512"),
        ({"batch": BatchConfig(8, 4)}, r"batch\.seq_len=4; the shortest length that keeps one is \d+"),
    ],
)
def test_a_fault_of_the_second_stage_is_found_before_the_first_is_trained(tmp_path, second, said):
    with pytest.raises(UserError, match=said) as refused:
        experiments.run(two_stages(**second), epath.Path(tmp_path / "workdir"))
    assert "second" in str(refused.value) and not (tmp_path / "workdir").exists()


def test_the_length_that_an_error_names_works():
    with pytest.raises(UserError) as refused:
        Resolved(two_stages(batch=BatchConfig(8, 4), mixture={"math": Share(fraction=1.0)})).chain()
    needed = int(re.search(r"keeps one is (\d+)", str(refused.value))[1])
    for length in (needed - 1, needed):
        config = two_stages(batch=BatchConfig(8, length), mixture={"math": Share(fraction=1.0)})
        config.domains["math"].validation_rows = 0
        if length == needed:
            assert len(Resolved(config).chain()) == 2
        else:
            with pytest.raises(UserError, match=f"the shortest length that keeps one is {needed}"):
                Resolved(config).chain()


def test_all_rows_held_out_says_how_many_may_be():
    config = two_stages(mixture={"general": Share(fraction=1.0)})
    config.domains["general"].validation_rows = 100
    with pytest.raises(UserError, match=r"stage 'second': general: .* set it below 100"):
        Resolved(config).chain()


def test_an_optimizer_of_other_rates_and_decay_can_be_carried():
    other = OptimizerConfig(learning_rate=1e-4, schedule="linear", weight_decay=0.1, options={"b2": 0.95})
    assert len(Resolved(two_stages(optimizer=other, carry_optimizer=True)).chain()) == 2


def test_a_replay_of_a_count_says_the_smallest_k():
    shares = {"code": Share(count=100)}
    with pytest.raises(UserError, match=r"'code', k=1/256 of 100 rows.*smallest k that works is 1/100.*256 rows"):
        strategies.dmt(Stage(), shares, {"general": Share(fraction=1.0)}, 1 / 256)
    for k, rows in ((1 / 100, 1), (0.29, 29), (1 / 3, 33)):
        assert strategies.dmt(Stage(), shares, {}, k)["general"].mixture["code"].count == rows


def warned(config: Experiment) -> list[str]:
    resolved = Resolved(config)
    return checks.warnings(resolved, resolved.chain())


@pytest.mark.parametrize(
    ("second", "said"),
    [
        # 16 rows of 160 tokens hold some 40 rows
        ({"mixture": {"math": Share(fraction=0.5)}, "steps": 2}, []),
        (
            {"mixture": {"math": Share(fraction=1.0)}, "steps": 2},
            ["stage 'second': steps=2 takes", " of the 90 rows of math"],
        ),
        (
            {"mixture": {"math": Share(weight=1.0), "general": Share(weight=1e-6)}, "steps": 2, "budget": 10**9},
            ["steps=2 takes none of the rows of general; raise steps"],
        ),
        ({"mixture": {"math": Share(weight=1.0), "general": Share(weight=1.0)}, "steps": 2}, []),
        ({"optimizer": OptimizerConfig(warmup=500)}, ["optimizer.warmup=500 is not shorter than the stage's"]),
        ({"optimizer": OptimizerConfig(warmup=2), "steps": 2}, ["warmup=2 is not shorter", "stage's 2 steps", "takes"]),
        ({"optimizer": OptimizerConfig(warmup=2)}, []),
        ({"optimizer": OptimizerConfig(warmup=0.99)}, []),
    ],
)
def test_what_steps_cut_off_and_a_warm_up_without_end_are_said_before_training(second, said):
    found = "\n".join(warned(two_stages(**second)))
    assert all(each in found for each in said) and bool(found) == bool(said), found


def test_a_replay_that_steps_leave_out_is_said():
    """The seed decides which of 90 examples of math the one of general stands behind."""
    lines = []
    for seed in range(6):
        config = two_stages(mixture={"math": Share(fraction=1.0), "general": Share(count=1)}, steps=1)
        config.seed = seed
        resolved = Resolved(config)
        stage = resolved.chain()[1].stage
        none = resolved.plan(stage)[0].ledger(1)["general"]["examples"] == 0
        assert ("none of the 1 rows of general" in "\n".join(checks.warnings(resolved, resolved.chain()))) == none
        lines.append(none)
    assert True in lines


def test_a_tokenizer_that_is_not_the_base_s_is_said(tmp_path):
    config = two_stages()
    config.model.tokenizer = str(TINY)
    assert not warned(config)
    others = "2 of its 1,536 ids are other tokens"
    for name, swapped, said in (("swapped", True, others), ("bos", False, "in another way")):
        folder = tmp_path / name
        shutil.copytree(TINY, folder)
        if swapped:
            record = json.loads((folder / "tokenizer.json").read_text())
            vocabulary = record["model"]["vocab"]
            one, two = sorted(vocabulary, key=vocabulary.get)[300:302]
            vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
            (folder / "tokenizer.json").write_text(json.dumps(record))
        else:
            record = json.loads((folder / "tokenizer_config.json").read_text())
            (folder / "tokenizer_config.json").write_text(json.dumps({**record, "bos_token": record["eos_token"]}))
        config.model.tokenizer = str(folder)
        (line,) = warned(config)
        assert line.startswith(f"model.tokenizer={folder} is not the tokenizer") and said in line
