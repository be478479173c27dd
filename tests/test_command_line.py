"""One command line for all commands: options, config fields, new entries, the arguments of configs, and --help."""

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from fractions import Fraction

import pytest
from conftest import ROOT, run
from test_house import VERBS

import sftmix_jax.evaluate as evaluate
import sftmix_jax.train as train
from sftmix_jax import desk
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine import options, specs
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, Items, Text, setting

HEAVY = ("jax", "flax", "optax", "orbax", "grain", "transformers", "datasets", "numpy", "scipy", "matplotlib")


def changed(*overrides):
    return experiment.read(["--config=quickstart.py", *(f"--config.{each}" for each in overrides)])


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_imports_nothing_heavy_and_lists_every_option(verb):
    code = (
        "import runpy, sys, atexit\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr))\n"
        f"sys.argv = ['{verb}', '--help']\n"
        f"runpy.run_module('sftmix_jax.{verb}', run_name='__main__', alter_sys=True)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stderr.strip() == "[]", ended.stderr
    module = importlib.import_module(f"sftmix_jax.{verb}")
    assert ended.stdout.startswith(module.__doc__.strip())
    for field in dataclasses.fields(module.Options):
        is_listed = re.search(rf"\n  --{field.name}(=|\n)", ended.stdout)
        assert bool(is_listed) == bool(field.metadata["meaning"])


def test_help_with_a_config_lists_its_fields_with_their_values(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # lines are wrapped to the terminal
    lines = "\n".join(options.help_lines(train.Options, "Doc.", ["--help", "--config", "dmt.py:tiny"]))
    for entry in (
        "  --config.stages.specialised.mixture.code.count=512\n        exactly this many rows, each `epochs` times; "
        "a whole number (int), at least 1",
        "  --config.domains.NAME=new\n",
        "  --config.domains.math.columns.KEY",
        "  --config.model.init='tiny'",
        "  --config.evaluation.data.tiny_math='tiny:100'",
        "  --config.logging.wandb=''",
    ):
        assert entry in lines, entry
    assert "Fields of dmt.py:tiny (--config.FIELD=VALUE):" in lines


def test_one_name_runs_all_commands():
    listed = run("sftmix_jax", "--help")
    assert listed.returncode == 0
    assert set(re.findall(r"^  (\w+) ", listed.stdout, re.MULTILINE)) == VERBS
    same = run("sftmix_jax", "report", "--help").stdout
    assert same == run("sftmix_jax.report", "--help").stdout and "--study" in same
    bad = run("sftmix_jax", "reprot")
    assert (bad.returncode, bad.stderr) == (2, "error: sftmix reprot: no such command; did you mean 'report'?\n")
    missing = run("sftmix_jax", "report")
    assert (missing.returncode, missing.stderr) == (2, "error: --workdir is missing: the workdir to report on\n")


@dataclasses.dataclass
class Own:
    count: int = setting(1, Integer(at_least=1), "a count")
    name: str | None = setting(None, Text(), "a name")
    files: tuple[str, ...] = setting((), Items(Text()), "files")
    numbers: tuple[int, ...] = setting((), Items(Integer(at_least=0)), "numbers")


def test_options_are_read_in_every_way_of_writing():
    def own(*arguments):
        return options.parse(Own, arguments)

    assert own() == Own() and own("--count=3") == own("--count", "3") == own("-count=3") == Own(count=3)
    assert own("--name=") == Own(name="") and own("--name", "-x=1") == Own(name="-x=1")
    assert own("--files", "a", "b,c", "--count=2") == Own(count=2, files=("a", "b,c"))
    assert own("--files=a,b").files == own("--files", "a,b").files == own("--files=('a', 'b')").files == ("a", "b")
    assert own("--numbers", "1", "2").numbers == own("--numbers=1,2").numbers == (1, 2)
    for arguments, said in {
        ("--cuont=2",): "--cuont: no such option; did you mean 'count'?",
        ("--count",): "--count needs a value: --count=VALUE",
        ("--name", "--count=1"): "--name needs a value: --name=VALUE",
        ("3",): "'3' is not understood",
        ("--count.x=3",): "--count.x: no such option",
        ("--numbers=1,-2",): "--numbers[1]: -2; must be at least 0",
        ("--numbers=(1",): "--numbers: '(1'; must be a tuple or a list",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            own(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to measure"),
        (["--tasks=gsm8k", "--model=a", "--workdir=b"], "name two things to score"),
        (["--tasks=gsm8k", "--compare", "a"], "--compare takes two stages"),
        (["--tasks=gsm8k", "--judge_prices=1"], "--judge_prices takes two numbers"),
        (["--task=gsm8k,svamp", "--responses=x"], "--responses belong to one task"),
        (
            ["--task=gsm8k", "--responses=x", "--workdir=y"],
            "--responses scores what is stored already; leave --workdir",
        ),
        (["--show=gsm8k"], "name the workdir whose responses to show"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(arguments, said):
    with pytest.raises(UserError, match=said):
        evaluate.main(options.parse(evaluate.Options, arguments))


@pytest.mark.parametrize("given", [["--workdir=a", "--workdir=b"], ["--workdir", "a", "--workdir", "a"]])
def test_an_option_that_is_given_twice_is_refused(given):
    with pytest.raises(UserError, match="--workdir is given twice; leave one out"):
        options.parse(train.Options, ["--config=dmt.py:tiny", *given])


def test_entries_are_added_and_removed_and_none_is_a_value():
    config = changed(
        "stages.third.mixture.extra.count=3",
        "domains.extra.path=x.jsonl",
        "domains.extra.columns.question=q",
        "domains.extra=new",
        "stages.third=new",
        "stages.third.epochs=2",
        "stages.general.mixture.math=None",
    )
    assert config.domains["extra"] == Source("x.jsonl", columns={"question": "q"})
    assert list(config.stages) == ["specialised", "general", "third"]
    assert config.stages["third"].mixture == {"extra": Share(count=3)} and config.stages["third"].epochs == 2
    assert list(config.stages["general"].mixture) == ["general", "code"]
    share = changed("stages.general.mixture.math.count=None", "stages.general.mixture.math.fraction=0.5")
    assert share.stages["general"].mixture["math"] == Share(fraction=0.5)
    assert changed("evaluation.tasks=").evaluation.tasks == ()
    assert changed("evaluation.tasks=tiny_math,tiny_code").evaluation.tasks == ("tiny_math", "tiny_code")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "domains.maths.path=x",
            "--config.domains.maths: no field 'maths'; did you mean 'math'?; to add it: --config.domains.maths=new",
        ),
        ("domains.math=new", "--config.domains.math: holds fields of its own"),
        ("domains.maths=None", "no field 'maths'; did you mean 'math'"),
        ("domains.math=None", "no domain 'math' in config.domains"),
        ("seed.x=1", "--config.seed.x: config.seed holds one value and has no field 'x'"),
        ("seed.x.y=1", "--config.seed.x: config.seed holds one value and has no field 'x'"),
        ("evaluation.tasks[0]=x", "is no path of fields"),
        (".seed=", "config.seed: ''; must be a whole number"),
        ("stages[general=1", "is no path of fields"),
    ],
)
def test_a_path_that_cannot_be_set_is_named(override, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        changed(override)
    assert "\n" not in str(error.value)


def test_two_configs_are_one_too_many():
    with pytest.raises(UserError, match=r"--config is given 2 times \(dmt.py, single.py\)"):
        experiment.read(["--config=dmt.py", "--config", "single.py"])


def build(size: str = "7b", k: Fraction = Fraction(1, 256), seeds: int = 1, hard: bool = False, rate: float = 0.5): ...


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("7b", {"size": "7b"}),
        ("13b,k=1/16", {"size": "13b", "k": Fraction(1, 16)}),
        ("size=a=b,k=0.25", {"size": "a=b", "k": Fraction(1, 4)}),
        ("k=1", {"k": Fraction(1)}),
        ("seeds=3,hard=true,rate=1e-3", {"seeds": 3, "hard": True, "rate": 0.001}),
        ("rate=1/48", {"rate": 1 / 48}),
        ("/a:b/c,hard=False", {"size": "/a:b/c", "hard": False}),
    ],
)
def test_the_arguments_of_a_config_are_read_by_name(text, values):
    found = specs.read("f.py", text, specs.readers(build))
    assert found == values and {type(value) for value in found.values()} == {type(value) for value in values.values()}
    assert specs.described(build) == ["size=7b", "k=1/256", "seeds=1", "hard=False", "rate=0.5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7b,1/16", "'1/16' has no name; write k=1/16 or seeds=1/16 or hard=1/16 or rate=1/16"),
        ("size=7b,sedes=3", "no argument 'sedes'; did you mean 'seeds'"),
        ("7b,size=13b", "'size' is given twice"),
        ("k=1/0", "k: '1/0'; must be a number or a fraction"),
        ("seeds=many", "seeds: 'many'; must be a whole number"),
        ("hard=yes", "hard: 'yes'; must be True or False"),
        ("rate=1/x", "rate: '1/x'; must be a number or a fraction"),
        ("rate=nan", "rate: nan; must be a finite number"),
    ],
)
def test_arguments_that_cannot_be_read_are_named_with_the_whole_spec(text, said):
    with pytest.raises(UserError, match=re.escape(f"f.py:{text}: {said}")):
        specs.read("f.py", text, specs.readers(build))


def test_annotations_that_stand_as_text_are_read_too(tmp_path):
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nimport fractions\n\n\n"
        "def get_config(k: fractions.Fraction = 1, n: int = 2):\n    return k, n\n"
    )
    spec = f"{tmp_path / 'own.py'}:1/4,n=3"
    assert desk.configured(spec, "config") == (Fraction(1, 4), 3) and desk.arguments(spec, "config") == ["k=1", "n=2"]
