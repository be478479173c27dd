"""The package in Python: the functions give what the commands give. docs/python.md trains with them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from test_report import workdir  # noqa: F401  a fixture

import sftmix_jax as sm
from sftmix_jax import api
from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine.errors import UserError
from sftmix_jax.training import loop


def test_a_config_is_loaded_as_by_a_command():
    mine = api.load("dmt.py", "seed=3", "model.lora.rank=8", size="tiny", k="1/16")
    flags = ["--config=dmt.py:size=tiny,k=1/16", "--config.seed=3", "--config.model.lora.rank=8"]
    assert mine == experiment.read(flags) and mine.seed == 3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: api.load("dmtt.py"), "dmtt"),
        (lambda: api.load("dmt.py", "sed=1"), "did you mean 'seed'"),
        (lambda: api.evaluate("runs/none", []), "name what to measure"),
        (lambda: api.evaluate("runs/none", ["gsm8k"]), "no workdir"),
        (lambda: api.results("runs/none"), "runs/none"),
        (lambda: api.evaluate("runs/none", ["gsm8k"], limit=-1), "evaluate.limit: -1; must be at least 0"),
        (lambda: api.Sampler("no/such/model"), "no/such/model"),
        (lambda: api.Sampler("tiny", slots=0), "Sampler.slots: 0; must be at least 1"),
        (lambda: api.Sampler("tiny", workdir="runs/none"), "name one model to ask"),
        (lambda: api.Sampler(), "name one model to ask"),
    ],
)
def test_what_a_command_refuses_is_refused(call, said):
    with pytest.raises(UserError) as error:
        call()
    assert said in str(error.value)


def test_a_thread_that_is_not_the_main_one_can_train():
    """It cannot handle signals, and none asks it to stop."""

    def train() -> int | None:
        with loop.stop_requests() as stop_asked:
            return stop_asked(1)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(train).result() is None


def test_the_package_has_these_names_and_no_others():
    assert sm.load is api.load and sm.Sampler is api.Sampler
    with pytest.raises(AttributeError, match="no attribute 'loads'"):
        assert sm.loads


def test_results_have_the_labels_of_the_studies(workdir):  # noqa: F811
    """Two seeds of two strategies, of which one experiment is not finished: its last stage has no score."""
    frame = sm.results(str(workdir))
    final = frame[frame.primary & frame.is_last & (frame.task == "tiny_math")]
    assert sorted(final[["strategy", "k", "seed"]].itertuples(index=False, name=None)) == [
        ("dmt", "1/256", 0),
        ("mixed_sequential", "0", 0),
        ("mixed_sequential", "0", 1),
    ]


def test_results_of_a_workdir_without_a_study_have_the_experiments_names(workdir):  # noqa: F811
    (workdir / "studies" / "toy.json").unlink()
    frame = sm.results(str(workdir))
    assert set(frame.experiment) == {"dmt-s0", "dmt-s1", "mixed_sequential-s0", "mixed_sequential-s1"}


def test_one_of_several_processes_is_refused(monkeypatch):
    named = {"JAX_COORDINATOR_ADDRESS": "localhost:9000", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"this is process 1 of 2 .*python -m sftmix_jax\.train"):
        api.train(api.load("quickstart.py"), "runs/none")


def test_a_home_folder_is_found_as_on_a_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="~/w: no workdir"):
        api.results("~/w")
    (tmp_path / "w" / "stages").mkdir(parents=True)
    assert len(api.results("~/w")) == 0
