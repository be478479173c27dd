"""The base of a workdir: a folder for each way in which it is asked, which every reader finds by its id."""

import dataclasses
import functools
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest
from etils import epath

from sftmix_jax.analysis import results
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.evaluation import runner
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import measuring, opening, stages
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment.stages import Resolved
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models.compute import ComputeConfig
from sftmix_jax.studies.jobs import make_jobs
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.workdir import records
from tests.campaigns import _scratch as scratch

TEMPLATES = {"marked": "chatml", "plain": "vicuna_v1.1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return scratch.save_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def base_alone(monkeypatch):
    """`experiments.run` ends after the base."""
    one = functools.partial(experiment.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(experiment, "make_mesh", one)
    monkeypatch.setattr(experiments, "complete", lambda *_: None)


def configs(model: Path) -> dict[str, experiment.Experiment]:
    """Two experiments that differ in the chat template alone, by name."""
    made = {}
    for name, template in TEMPLATES.items():
        config = scratch.experiment(model, name=name)
        for stage in config.stages.values():
            stage.batch = dataclasses.replace(stage.batch, seq_len=128)  # vicuna's first words alone are 64 tokens
        asked = EvaluationConfig(tasks=("tiny_math",), limit=2)
        made[name] = dataclasses.replace(config, template=template, evaluation=asked)
    return made


def test_experiments_with_other_templates_score_bases_of_their_own(model, base_alone, tmp_path):
    workdir, of = epath.Path(tmp_path), configs(model)
    for config in of.values():
        experiments.run(config, workdir)
    experiments.run(of["marked"], workdir)  # the last writer's template is the first one's again
    study = Study("s", "", [Run(config, {"strategy": name, "seed": 0}) for name, config in of.items()])
    jobs = {job.id: job for job in make_jobs(study, workdir) if job.stage is None}
    assert len(jobs) == len(list(workdir.glob("stages/base-*"))) == 2
    with pytest.raises(UserError, match=r"which stage\? --stage=base-\w+ or base-\w+"):
        measuring.compare_stages(workdir, ["base", "base"], ["tiny_math"])
    for name, config in of.items():
        template = Resolved(config).chat.fingerprint
        base = json.loads((workdir / "experiments" / f"{name}.json").read_text())["base"]
        folder = records.stage_folder(workdir, base)
        assert folder == jobs[base].folder(workdir) and jobs[base].is_done(workdir)
        assert opening.stage_folders(workdir, base) == [folder]
        assert opening.open_stage(folder, opening.Opening()).chat.fingerprint == template
        found = results.read_results(workdir, results.every_experiment(workdir))
        fixed = {json.loads(r.fixed_by)["template"] for r in found if (r.experiment, r.stage) == (name, "base")}
        assert fixed == {template}


@pytest.mark.parametrize("limit", [2, 3])
def test_a_base_is_scored_by_one_process_at_a_time_whatever_the_command(
    model, base_alone, tmp_path, monkeypatch, limit
):
    """`evaluate` comes while a trainer asks; it takes the same score, or makes another after it."""
    workdir, config = epath.Path(tmp_path), configs(model)["marked"]
    asking, go_on, asked = threading.Event(), threading.Event(), []
    original = runner.ask

    def slow(answering, name, questions, *more):
        asked.append(len(questions))
        asking.set()
        assert go_on.wait(60)
        return original(answering, name, questions, *more)

    monkeypatch.setattr(runner, "ask", slow)
    with ThreadPoolExecutor(2) as pool, scratch.quiet() as said:
        try:
            trainer = pool.submit(experiments.run, config, workdir)
            assert asking.wait(60)
            base = opening.open_stage(Resolved(config).base_folder(workdir), opening.Opening())
            other = dataclasses.replace(config.evaluation, limit=limit)
            verb = pool.submit(measuring.run_tasks, base, other, opening.Opening())
            with pytest.raises(TimeoutError):
                verb.result(2)
            assert asked == [2]
        finally:
            go_on.set()
        trainer.result()
        (record,) = verb.result()
    assert asked == ([2] if limit == 2 else [2, 3])
    assert record == records.score(base.folder / "eval" / "tiny_math" / "score.json")
    assert record["questions"] == limit
    assert said.getvalue().count(f"tiny_math on {base.name}: waiting for process {os.getpid()} on ") == 1


def test_a_bases_id_covers_what_decides_its_prompts_and_answers_and_nothing_else(model, tmp_path):
    config = scratch.experiment(model)
    tokenizer = Tokenizer(str(stages.TINY))
    tokenizer.save(epath.Path(tmp_path / "other"))
    file = tmp_path / "other" / "tokenizer.json"
    changed = json.loads(file.read_text())
    changed["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(changed))
    shutil.copytree(model, tmp_path / "stops")
    (tmp_path / "stops" / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    scratch.save_model(tmp_path / "weights", seed=1)

    def with_model(**fields) -> experiment.Experiment:
        return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))

    others = [
        config,
        dataclasses.replace(config, template="vicuna_v1.1"),
        with_model(tokenizer=str(tmp_path / "other")),
        with_model(compute=ComputeConfig(dtype="bfloat16")),
        with_model(init=f"hf:{tmp_path / 'stops'}"),
        with_model(init=f"hf:{tmp_path / 'weights'}"),
    ]
    assert len({Resolved(other).base_id for other in others}) == len(others)
    shutil.copytree(model, tmp_path / "copy")
    same = [
        dataclasses.replace(config, name="other", seed=5),
        dataclasses.replace(config, stages={"first": config.stages["first"]}),
        with_model(init=f"hf:{tmp_path / 'copy'}"),
    ]
    assert {Resolved(other).base_id for other in same} == {Resolved(config).base_id}


def test_a_base_that_stops_elsewhere_than_when_it_was_written_is_refused(model, base_alone, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    experiments.run(scratch.experiment(tmp_path / "model"), epath.Path(tmp_path))
    (folder,) = epath.Path(tmp_path).glob("stages/base-*")
    assert opening.open_stage(folder, opening.Opening())
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    with pytest.raises(UserError, match=r"its model hf:\S+ has changed since \(ends.ids: \[2\] → \[2, 7\]\)"):
        opening.open_stage(folder, opening.Opening())


def test_a_base_whose_id_did_not_cover_the_template_is_refused_with_the_remedy(model, base_alone, tmp_path):
    experiments.run(scratch.experiment(model), epath.Path(tmp_path))
    (folder,) = epath.Path(tmp_path).glob("stages/base-*")
    record = json.loads((folder / "stage.json").read_text())
    record = {key: value for key, value in record.items() if key not in ("weights", "ends")}
    (folder / "stage.json").write_text(json.dumps(record | {"digest": stages.stage_digest(record)}))
    with pytest.raises(UserError, match=r"written by an older version.*delete it and run the train"):
        opening.open_stage(folder, opening.Opening())
