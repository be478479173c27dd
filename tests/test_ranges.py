"""Every field of a config has its range; a value out of it is refused by path, value and range before anything runs."""

import copy
import dataclasses
import json
import math
import re

import pytest
from conftest import ROOT
from etils import epath

import sftmix_jax.evaluate as evaluate
import sftmix_jax.sample as sample
from sftmix_jax import desk
from sftmix_jax import study as study_verb
from sftmix_jax.data import user_functions
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.evaluation import judging
from sftmix_jax.evaluation.judging import JudgeConfig, Prompt
from sftmix_jax.experiment import arguments
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.experiment.opening import Opening
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine import identity, options, processes, ranges
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import AnyOf, Choice, Flag, Integer, Items, Number, Table, Text, Tree
from sftmix_jax.studies import study
from sftmix_jax.studies.study import Axis, Run, Study
from sftmix_jax.training.optimizer import OptimizerConfig


def whole_experiment() -> Experiment:
    """An experiment in which every dict and tuple of the config tree has an entry."""
    stage = Stage(mixture={"math": Share(fraction=0.5), "code": Share(count=3)})
    stage.optimizer.options = {"b2": 0.95}
    weighted = Stage(mixture={"math": Share(weight=2.0)}, budget=1000)
    config = Experiment(
        "whole",
        domains={"math": Source("math.jsonl", columns={"question": "q"}), "code": Source("code.jsonl")},
        stages={"first": stage, "second": weighted},
    )
    config.model.trainable = ("embed",)
    config.evaluation.tasks, config.evaluation.data = ("tiny_math",), {"tiny_math": "tiny:3"}
    return config


def leaves(value, allowed, where, put):
    """Every value in a config tree that has a range of its own: (path, value, range, function that replaces it)."""
    if isinstance(allowed, Tree):
        for field in dataclasses.fields(value):
            held = getattr(value, field.name)
            if held is not None:
                set_field = lambda new, name=field.name: setattr(value, name, new)  # noqa: E731
                yield from leaves(held, ranges.range_of(field), f"{where}.{field.name}", set_field)
    elif isinstance(allowed, Table):
        each = allowed.each if isinstance(allowed.each, ranges.Range) else Tree(allowed.each)
        for key in value:
            yield from leaves(value[key], each, f"{where}.{key}", lambda new, key=key: value.__setitem__(key, new))
    elif isinstance(allowed, Items):
        each = allowed.each if isinstance(allowed.each, ranges.Range) else Tree(allowed.each)
        for i, item in enumerate(value):
            set_item = lambda new, i=i: put((*value[:i], new, *value[i + 1 :]))  # noqa: E731
            yield from leaves(item, each, f"{where}[{i}]", set_item)
    yield where, value, allowed, put


def outside(allowed):
    """Values that a range must refuse: below, above, not a number, of another type."""
    yield from (math.nan, math.inf, -math.inf, None, b"x", object(), 10**400)
    match allowed:
        case Integer():
            yield next(n for n in range(allowed.at_least - 1, -10, -1) if n not in allowed.also)
            yield from (allowed.at_most + 1, 1.0, 1.5, True, "1", [1])
        case Number():
            yield from ("1", True, [0.5], 1j)
            yield from ([allowed.above] if allowed.above > -math.inf else [])
            yield from ([math.nextafter(allowed.at_least, -math.inf)] if 0 < abs(allowed.at_least) < math.inf else [])
            yield from ([-1e-9] if max(allowed.at_least, allowed.above) >= 0 else [])
            yield from ([math.nextafter(allowed.at_most, math.inf)] if allowed.at_most < math.inf else [])
        case Flag():
            yield from (0, 1, "True", "")
        case Text():
            yield from (1, True, ["a"], "nul\0", "bell\a", "\x7f", "half a pair \ud800")
        case Choice():
            yield from (0, True, "", "nonesuch", ["auto"])
        case AnyOf():
            yield from ([1], {})
        case Items():
            yield from ("gsm8k", 3, {"a"})
        case Table() | Tree():
            yield from ([], "x", 3)


def test_every_field_of_every_config_refuses_what_is_out_of_its_range():
    """Walks all fields by introspection: a new field without a range ends this test with a TypeError."""
    axes = (Axis("k", order=("1", "1/4"), default="1/4"),)
    config = Study("all", "Which?", [Run(whole_experiment(), {"k": "1/4"})], axes=axes)
    config.check()
    found = list(leaves(config, Tree(Study), "study", None))
    types = {type(value) for _, value, _, _ in found if dataclasses.is_dataclass(value)}
    assert {t.__name__ for t in types} == {
        "Study",
        "Run",
        "Experiment",
        "ModelConfig",
        "ComputeConfig",
        "Stage",
        "Share",
        "Source",
        "BatchConfig",
        "OptimizerConfig",
        "MeshConfig",
        "CheckpointConfig",
        "LoaderConfig",
        "LoggingConfig",
        "EvaluationConfig",
        "JudgeConfig",
        "Axis",
        "LoraConfig",
    }
    tried = 0
    for path, value, allowed, put in found[:-1]:
        for wrong in outside(allowed):
            if wrong is None and path.endswith((".fraction", ".count", ".weight", ".default")):
                continue  # None stands for a share of another kind, or for no default
            put(wrong)
            with pytest.raises(UserError) as error:
                config.check()
            shown = repr(wrong) if len(repr(wrong)) <= 80 else repr(wrong)[:60]
            assert str(error.value).startswith(f"{path}: {shown}"), path
            assert "; must " in str(error.value) and "\n" not in str(error.value)
            put(value)
            tried += 1
    config.check()
    assert tried > 1000


def config_types(*kinds) -> set[type]:
    """These dataclasses, and all that their fields hold."""
    seen = set()

    def walk(kind):
        seen.add(kind)
        for field in dataclasses.fields(kind):
            allowed = ranges.range_of(field)
            inner = getattr(allowed, "type", None) or getattr(allowed, "each", None)
            if isinstance(inner, type):
                walk(inner)

    for kind in kinds:
        walk(kind)
    return seen


def test_every_field_of_a_config_has_a_range_also_those_that_are_unset():
    assert len(config_types(Study, Opening)) == 19


def test_every_field_of_a_config_says_what_it_means():
    for kind in config_types(Study, Opening):
        assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("), f"{kind.__name__} has no docstring"
        for field in dataclasses.fields(kind):
            assert field.metadata.get("meaning") or isinstance(ranges.range_of(field), Tree), (
                f"{kind.__name__}.{field.name}"
            )


def takes_any_number(allowed) -> bool:
    return isinstance(allowed, Number) or (isinstance(allowed, AnyOf) and any(map(takes_any_number, allowed.ranges)))


def test_a_whole_number_in_a_field_for_any_number_changes_no_identity():
    """`fraction=1` and `fraction=1.0` are one stage; a count stays the integer that it is."""
    tried = 0
    for kind in config_types(Study):
        for field in dataclasses.fields(kind):
            allowed, wrap = ranges.range_of(field), lambda value: value
            if isinstance(allowed, Table):
                allowed, wrap = allowed.each, lambda value: {"b2": value}
            elif isinstance(allowed, Items):
                allowed, wrap = allowed.each, lambda value: (value,)
            if takes_any_number(allowed) or isinstance(allowed, Integer):
                alone = (field.name, field.type, dataclasses.field(metadata=field.metadata))
                one = dataclasses.make_dataclass("Alone", [alone])
                written = [repr(identity.plain(one(wrap(value)))) for value in (1, 1.0, True, 0.0, -0.0)]
                wanted = takes_any_number(allowed)  # a whole number's field refuses 1.0
                assert ("1.0" in written[0]) is wanted and "True" in written[2], (kind, field.name)
                assert not wanted or (written[0] == written[1] and written[3] == written[4]), (kind, field.name)
                tried += wanted
    assert tried > 10
    assert identity.digest({"share": Share(fraction=1)}) == identity.digest({"share": Share(fraction=1.0)})
    assert identity.digest({"share": Share(count=1)}) != identity.digest({"share": Share(count=2)})
    whole, exact = (OptimizerConfig(options={"eps_root": value, "nesterov": False}) for value in (1, 1.0))
    assert identity.digest({"optimizer": whole}) == identity.digest({"optimizer": exact})
    assert judging.judgment_key("j", JudgeConfig(temperature=1), Prompt("n", "s", "u"), 0) == judging.judgment_key(
        "j", JudgeConfig(temperature=1.0), Prompt("n", "s", "u"), 0
    )


def test_a_field_without_a_range_is_an_error_of_ours():
    @dataclasses.dataclass
    class Forgotten:
        size: int = 3

    with pytest.raises(TypeError, match="'size' has no range"):
        ranges.check(Forgotten(), "config")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("checkpoints.keep", "0", "config.checkpoints.keep: 0; must be at least 1"),
        ("checkpoints.every", "0", "config.checkpoints.every: 0; must be at least 1"),
        ("domains.math.validation_rows", "-5", "config.domains.math.validation_rows: -5; must be at least 0"),
        ("seed", "-1", "config.seed: -1; must be at least 0"),
        ("seed", "4294967296", "config.seed: 4294967296; must be at least 0 and at most 2147483647"),
        ("stages.general.optimizer.learning_rate", "-1", "learning_rate: -1.0; must be at least 1e-12"),
        ("stages.general.optimizer.learning_rate", "nan", "learning_rate: nan; must be a finite number, at least 1e-1"),
        ("stages.general.optimizer.learning_rate", "1e30", "1e+30; must be at least 1e-12 and at most 100"),
        ("stages.general.optimizer.clip_norm", "inf", "clip_norm: inf; must be a finite number, at least 1e-06"),
        ("stages.general.optimizer.warmup", "1.5", "must be below 1 (a part of the steps) or a whole number of steps"),
        ("stages.general.optimizer.name", "adamv", "config.stages.general.optimizer.name: no optimizer 'adamv'"),
        ("stages.general.optimizer.weight_decay", "-0.1", "weight_decay: -0.1; must be at least 0"),
        ("stages.general.batch.batch_size", "0", "config.stages.general.batch.batch_size: 0; must be at least 1"),
        ("stages.general.batch.seq_len", "1", "config.stages.general.batch.seq_len: 1; must be at least 2, or 0"),
        ("stages.general.batch.grad_accum_steps", "3", "batch.grad_accum_steps: 3; must divide batch_size=4"),
        ("stages.general.budget", "100", "config.stages.general.budget: 100; only shares by weight have a budget"),
        ("stages.general.mixture.math.weight", "1", "math by weight and others not"),
        ("mesh.fsdp", "0", "config.mesh.fsdp: 0; must be at least 1, or -1"),
        ("mesh.data", "-1", "at most one may be -1"),
        ("loading.threads", "-1", "config.loading.threads: -1; must be at least 0 and at most 1024"),
        ("logging.every", "0", "config.logging.every: 0; must be at least 1"),
        ("logging.wandb", "a/b", "config.logging.wandb: 'a/b'; must be at most 128 characters without"),
        ("evaluation.temperature", "nan", "config.evaluation.temperature: nan; must be a finite number"),
        ("evaluation.temperature", "1e-38", "temperature: 1e-38; must be at least 0.001 and at most 100, or 0"),
        ("evaluation.judge.name", "gpt-4", "config.evaluation.judge.name: 'gpt-4'; must be openai:MODEL or model:"),
        ("evaluation.judge.concurrency", "0", "concurrency: 0; must be at least 1 and at most 1024"),
        ("evaluation.tasks", "(1, 2)", "config.evaluation.tasks[0]: 1; must be the name of a task"),
        ("name", "../../x", "config.name: '../../x'; must be a name of 1 to 100 letters"),
        # what the command line cannot read as the field's type
        ("checkpoints.keep", "nan", "config.checkpoints.keep: 'nan'; must be a whole number (int), at least 1"),
        ("checkpoints.keep", "2.5", "config.checkpoints.keep: '2.5'; must be a whole number (int), at least 1"),
        ("stages.general.mixture.math.count", "None", "math: set one of fraction, count and weight; set are: none"),
        ("stages.general.epochs", "None", "config.stages.general.epochs: 'None'; must be a whole number (int)"),
        ("logging.tensorboard", "maybe", "config.logging.tensorboard: 'maybe'; must be True or False"),
    ],
)
def test_a_command_line_out_of_range_is_refused_in_one_line(field, value, said):
    with pytest.raises(UserError, match=re.escape(said)) as error:
        experiment.read(["--config=quickstart.py", f"--config.{field}={value}"])
    assert "\n" not in str(error.value)


BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/tmp/x",
    ".hidden",
    "-x",
    "a b",
    "a:b",
    "a\nb",
    "a\0b",
    "tab\t",
    "*",
    "x" * 101,
    "größe",
    "gs://x",
    "a?b",
    5,
    None,
    ("a",),
]
GOOD_NAMES = ["dmt_1_4-7b-s0", "llama3.1-8b", "A", "0", "_x", "x" * 100, "a..b"]


@pytest.mark.parametrize("name", BAD_NAMES + GOOD_NAMES)
def test_a_name_that_makes_a_path_is_one_plain_word(name):
    config, good = whole_experiment(), name in GOOD_NAMES
    for where, named in {
        "config.name: ": dataclasses.replace(config, name=name),
        "config.stages: key ": dataclasses.replace(config, stages={name: config.stages["first"]}),
        "config.domains: key ": dataclasses.replace(config, domains=config.domains | {name: Source()}),
    }.items():
        if good:
            named.check()
            continue
        with pytest.raises(UserError, match=f"^{re.escape(where)}.*must be a name"):
            named.check()
    twin = Study(name, "", [Run(config, {})])
    if not good:
        with pytest.raises(UserError, match=r"^study\.name: .*must be a name"):
            twin.check()


@pytest.mark.parametrize("name", ["all", "base", "base-2"])
def test_a_stage_is_not_named_like_what_means_other_folders(name):
    config = whole_experiment()
    config.stages = {name: config.stages["first"]}
    with pytest.raises(UserError, match=f"config.stages: key '{name}'; must not be all, base or base-"):
        config.check()


def test_a_misspelt_assignment_of_a_config_file_is_named():
    config = whole_experiment()
    config.stages["first"].batch.batch_sise = 8
    with pytest.raises(UserError, match=r"config\.stages\.first\.batch\.batch_sise: .*did you mean 'batch_size'"):
        config.check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.stages["first"].mixture.update(math=Share(weight=1.0)), "math by weight and others not"),
        (lambda c: setattr(c.stages["second"], "budget", 0), "shares by weight need a budget (in tokens) or steps"),
        (lambda c: c.stages["first"].mixture.update(maths=Share(count=1)), "no domain 'maths' in config.domains"),
        (lambda c: setattr(c.stages["second"].optimizer, "options", {"b9": 0.5}), "config.stages.second.optimizer"),
        (lambda c: setattr(c.stages["second"], "mixture", {}), "config.stages.second.mixture is empty"),
        (lambda c: c.stages.clear(), "has no stages"),
        (lambda c: setattr(c.evaluation, "tasks", "gsm8k"), "config.evaluation.tasks: 'gsm8k'; must be a tuple or"),
        (lambda c: setattr(c.evaluation, "tasks", ("tiny_maths",)), "config.evaluation.tasks: 'tiny_maths'; no file"),
        (lambda c: setattr(c.stages["first"], "batch", None), "config.stages.first.batch: None; must be of type"),
        (lambda c: setattr(c, "stages", {"a-b": Stage()}), "config.stages['a-b'].mixture is empty"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(change, said):
    config = whole_experiment()
    change(config)
    with pytest.raises(UserError, match=re.escape(said)):
        config.check()


def test_a_study_names_the_experiment_and_the_field():
    found = study.read("studies/rq4.py:size=tiny,seeds=1")
    found.runs[1].experiment.checkpoints.keep = 0
    with pytest.raises(UserError, match=r"^study\.runs\[1\]\.experiment\.checkpoints\.keep: 0; must be at least 1$"):
        found.check()


def test_every_numeric_override_is_read_as_before():
    """Each override is read by the field's range: the same values give the same config."""
    plain = experiment.read(["--config=quickstart.py"])
    flags, count = [], 0
    for path, value, allowed, _ in leaves(copy.deepcopy(plain), Tree(Experiment), "config", None):
        if isinstance(allowed, Integer | Number | Flag | Choice) or (isinstance(allowed, Text) and value):
            flags.append(f"--{path}={value}")
            count += 1
    again = experiment.read(["--config=quickstart.py", *[flag for flag in flags if "[" not in flag]])
    assert again == plain and count > 60


def test_ranges_leave_the_json_of_an_identity_alone():
    config = whole_experiment()
    assert identity.plain(config) == json.loads(json.dumps(dataclasses.asdict(config)))
    assert identity.plain(config.stages["first"].mixture["math"]) == {"fraction": 0.5, "count": None, "weight": None}


def test_nothing_is_written_and_no_data_is_read_for_a_config_out_of_range(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTMIX_CACHE", str(tmp_path / "cache"))
    for change, said in (
        (lambda c: setattr(c, "name", "../../../x"), r"config\.name: '\.\./\.\./\.\./x'; must be a name"),
        (lambda c: setattr(c.checkpoints, "keep", 0), r"config\.checkpoints\.keep: 0; must be at least 1"),
        (lambda c: setattr(c.mesh, "data", 5), "needs a multiple of 5 devices"),
        (lambda c: setattr(list(c.stages.values())[-1].optimizer, "name", "adamv"), "optimizer.name: no optimizer"),
    ):
        config = experiment.read(["--config=quickstart.py"])
        change(config)
        with pytest.raises(UserError, match=said):
            experiments.run(config, epath.Path(tmp_path / "a" / "b" / "work"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "given", "said"),
    [
        (sample, ["--temperature=nan"], "--temperature: nan; must be a finite number"),
        (sample, ["--temperature=inf"], "--temperature: inf; must be a finite number"),
        (sample, ["--temperature=-1"], "--temperature: -1.0; must be at least 0.001 and at most 100, or 0"),
        (sample, ["--top_p=nan"], "--top_p: nan; must be a finite number, above 0 and at most 1"),
        (sample, ["--top_p=0"], "--top_p: 0.0; must be above 0 and at most 1"),
        (sample, ["--max_new_tokens=0"], "--max_new_tokens: 0; must be at least 1"),
        (sample, ["--num_samples=-2"], "--num_samples: -2; must be at least 1"),
        (sample, ["--seed=-1"], "--seed: -1; must be at least 0"),
        (sample, ["--slots=0"], "--slots: 0; must be at least 1"),
        (sample, ["--dtype=float64"], "--dtype: 'float64'; must be auto, float32 or bfloat16"),
        (evaluate, ["--limit", "-1"], "--limit: -1; must be at least 0"),
        (evaluate, ["--samples=0"], "--samples: 0; must be at least 1"),
        (evaluate, ["--samples=two"], "--samples: 'two'; must be a whole number (int), at least 1"),
        (evaluate, ["--temperature=nan"], "--temperature: nan; must be a finite number"),
        (evaluate, ["--judge_prices", "1", "nan"], "--judge_prices[1]: nan; must be a finite number, at least 0"),
        (evaluate, ["--judge_timeout=0"], "--judge_timeout: 0.0; must be above 0"),
        (evaluate, ["--judge=gpt-4"], "--judge: 'gpt-4'; must be openai:MODEL or model:DIR_OR_HUB_ID"),
        (study_verb, ["--config=x", "--utilisation=0"], "--utilisation: 0.0; must be above 0 and at most 1"),
        (study_verb, ["--config=x", "--workers=-3"], "--workers: -3; must be at least 0"),
    ],
)
def test_a_verbs_own_numbers_have_ranges(verb, given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        options.parse(verb.Options, given)


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        (sample, ["--workdir"]),
        (sample, ["--prompts"]),
        (evaluate, ["--workdir"]),
        (evaluate, ["--out"]),
        (study_verb, ["--config=x", "--workdir"]),
    ],
)
def test_paths_may_begin_with_the_home_folder(verb, given, monkeypatch):
    """Shells leave `--workdir=~/runs` as it is."""
    monkeypatch.setenv("HOME", "/home/me")
    field = given[-1].removeprefix("--")
    for form in ([*given[:-1], f"{given[-1]}=~/runs"], [*given, "~/runs"]):
        assert getattr(options.parse(verb.Options, form), field) == "/home/me/runs"
    there = [*given[:-1], f"{given[-1]}=gs://bucket/~/runs"]
    assert getattr(options.parse(verb.Options, there), field) == "gs://bucket/~/runs"


def test_files_that_a_config_names_may_begin_with_the_home_folder(monkeypatch, tmp_path):
    """The config itself, its template, and functions of the user's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("def rows(row):\n    return [('user', row['a']), ('assistant', row['b'])]\n")
    (tmp_path / "config.py").write_text(
        "from sftmix_jax.experiment.config import Experiment\n\nget_config = lambda: Experiment('mine', {}, {})\n"
    )
    (tmp_path / "own.jinja").write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    assert desk.configured("~/config.py", "configs").name == "mine" == desk.configured("~/config", "configs").name
    assert user_functions.load("convert", "~/mine.py:rows")({"a": "1", "b": "2"})[0] == ("user", "1")
    assert Chat("~/own.jinja", Tokenizer(str(TINY))).fingerprint


def test_flags_beside_a_config_have_ranges():
    part, count = Number(above=0, at_most=1), Integer(at_least=1)

    @dataclasses.dataclass
    class Own:
        config: tuple[str, ...] = dataclasses.field(default=(), metadata=arguments.CONFIG)
        workdir: str = ranges.setting("", Text(), "a folder")
        utilisation: float = ranges.setting(0.4, part, "of the peak")
        batches: int = ranges.setting(4, count, "how many")

    given = options.parse(Own, ["--config=quickstart.py", "--batches=7", "--workdir=w", "--config.seed", "3"])
    assert given == Own(("--config=quickstart.py", "--config.seed=3"), "w", 0.4, 7)
    assert arguments.read(given.config).seed == 3
    for flag, said in {
        "--utilisation=nan": "--utilisation: nan; must be a finite number, above 0 and at most 1",
        "--batches=0": "--batches: 0; must be at least 1",
        "--batches=x": "--batches: 'x'; must be a whole number (int), at least 1",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            options.parse(Own, ["--config=quickstart.py", flag])


def test_a_coordinators_port_and_patience_have_ranges(monkeypatch):
    environment = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    for port in ("0", "65535", "99999"):
        with pytest.raises(UserError, match=f"port {port}; must be at least 1 and at most 65534"):
            processes.find_place(environment | {"JAX_COORDINATOR_ADDRESS": f"host:{port}"})
    for timeout in ("nan", "soon", "0", "-1"):
        monkeypatch.setenv("JAX_JOIN_TIMEOUT", timeout)
        with pytest.raises(UserError, match=r"JAX_JOIN_TIMEOUT: .*must be"):
            processes.join()


def test_options_read_from_a_command_line_are_the_values_of_the_field():
    assert ranges.of(Opening, "slots").parse("7") == 7 and ranges.of(Opening, "dtype").parse("bfloat16") == "bfloat16"
    assert Flag().parse("true") is True and Flag().parse("0") is False
    with pytest.raises(UserError, match="must be True or False"):
        Flag().parse("2")


def test_every_shipped_study_and_config_is_within_its_ranges():
    for file in sorted((ROOT / "configs").glob("*.py")):
        assert experiment.read(["--config", file.name]).stages
    for file in sorted((ROOT / "configs" / "studies").glob("*.py")):
        assert study.read(f"studies/{file.name}").runs
