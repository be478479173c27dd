"""One string in every field of a workdir, and a look at every output: it is shown as text, and obeyed nowhere."""

import csv
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from conftest import ROOT, run
from etils import epath
from pyarrow import parquet
from rich.panel import Panel
from rich.text import Text

import sftmix_jax.evaluate as evaluate
from sftmix_jax.analysis import responses, results, table, tables
from sftmix_jax.analysis.report import files as report_files
from sftmix_jax.analysis.report import render
from sftmix_jax.evaluation import asking, runner
from sftmix_jax.evaluation.compare import Difference
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.judging import JudgeConfig
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine import escaping, files, options, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.leases import Leases
from sftmix_jax.planning import printing
from sftmix_jax.planning.planner import Planned
from sftmix_jax.sampling.sampler import Response
from sftmix_jax.sampling.settings import SamplingConfig
from sftmix_jax.studies import emit, reporting, watching
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.workdir import records

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What a spreadsheet, a browser, rich, a terminal, LaTeX, matplotlib and a path would each take for their own.
PLANTED = (
    "=cmd|'/C calc'!A0<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    '<a href="https://example.org">"\'&amp;[/x][bold]:smile:\x1b[31m\x1b]0;title\x07\x9b2J\r'
    "$x^2$ ~^_%$#{}\\ /../../..\x7f"
)
NAME = PLANTED.replace("/", "")  # of a file or folder
SHOWN = PLANTED.translate({0x1B: "\\x1b", 0x07: "\\x07", 0x9B: "\\x9b", 0x0D: "\\r", 0x7F: "\\x7f"})


def write(file, record):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))


def plant_stage(workdir, id, *, is_base):
    """A stage as a run leaves it; every text is the planted one."""
    folder = workdir / "stages" / f"{NAME}-{id}"
    for task, metric, best in (("tiny_math", PLANTED, 1.0), (NAME, PLANTED, 10.0)):
        out = folder / "eval" / task
        rows = [
            {
                "id": f"{PLANTED}{i}",
                "turns": [PLANTED],
                "reference": {"answer": PLANTED},
                "extracted": [PLANTED],
                "reasons": [PLANTED],
                "scores": {metric: best * (i % 2)},
                **({"samples": [[PLANTED], [PLANTED]]} if best == 10 else {"response": PLANTED}),
            }
            for i in range(4)
        ]
        summary = {"value": best / 2, "n": 4, "low": best / 4, "high": best, "best": best}
        records.write_scored(
            epath.Path(out),
            rows,
            {
                "task": task,
                "model": PLANTED,
                "metrics": {metric: summary, f"{metric}, {PLANTED}": summary},
                "questions": 4,
                "missing": [PLANTED],
                "failures": {PLANTED: 4},
                "warning": PLANTED,
                "judgments": 1,
                "judgments_known_before": 0,
                "judge_input_tokens": 0,
                "judge_output_tokens": 0,
                "judge_dollars": 0.0,
                "unparsed": [PLANTED],
                "failed": {PLANTED: PLANTED},
                "flags": {PLANTED: [PLANTED]},
                "fixed_by": {"code_version": PLANTED, PLANTED: PLANTED, "judge": {"id": PLANTED}},
            },
        )
    write(
        folder / "probe.json",
        {
            "settings": {PLANTED: PLANTED},
            "domains": [PLANTED, "b"],
            "silhouette": {PLANTED: 0.5, "b": 0.5},
            "cosines": {PLANTED: {PLANTED: 0.5}},
            "x": [0.0, 1.0],
            "y": [0.0, 1.0],
            "layer": PLANTED,
        },
    )
    if not is_base:
        rows = {
            "used": 10,
            "stored": 12,
            "of them truncated": 1,
            "not taken": 2,
            "held out": 0,
            "skipped": {PLANTED: 1},
            "without an answer within the length": 0,
        }
        write(
            folder / "done.json",
            {
                "id": id,
                "digest": PLANTED,
                "steps": 2,
                "params_sha256": PLANTED,
                "ledger": {PLANTED: {"examples": 10, "tokens": 9, "trained_tokens": 9, "epochs": 1.0}},
                "rows": {PLANTED: rows},
                "validation_loss": {PLANTED: 0.5},
            },
        )
        lines = [{"step": step, "loss": 2.0 / step, f"loss/{PLANTED}": 2.0 / step} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A workdir in a folder of its own, with the planted string in every field that is not a number or an id."""
    workdir = tmp_path_factory.mktemp("planted") / "workdir"
    plant_stage(workdir, "b", is_base=True)
    plant_stage(workdir, "s", is_base=False)
    experiments = {}
    for name, size, stages in ((NAME, PLANTED, {PLANTED: "s"}), (f"{NAME}2", "=2", {PLANTED: "missing"})):
        config = {"name": PLANTED, "seed": 0, PLANTED: PLANTED}
        write(workdir / "experiments" / f"{name}.json", {"experiment": config, "base": "b", "stages": stages})
        experiments[name] = {"strategy": PLANTED, "source": PLANTED, "size": size, "seed": 0, PLANTED: PLANTED}
    record = {"name": PLANTED, "question": PLANTED, "hold": PLANTED, "experiments": experiments | {PLANTED: {}}}
    write(workdir / "studies" / f"{NAME}.json", record)
    write(workdir / "failures" / "x.json", {"job": PLANTED, "experiments": [PLANTED], "error": f"x\n{PLANTED}"})
    write(workdir / "contamination.json", {PLANTED: {"key": PLANTED, "of": 4, "questions": {PLANTED: [PLANTED]}}})
    return epath.Path(workdir)


@pytest.fixture(scope="module")
def written(workdir):
    (found,) = reporting.write(workdir)
    return Path(found)


def is_shown(text: str) -> bool:
    """The planted string stands in a terminal's text, and nothing that a terminal obeys; lines may be wrapped."""
    assert not re.search(r"[^\n\x20-\x7e\xa0-\U0010ffff]", text), ascii(text)
    return "".join(SHOWN.split()) in re.sub(r"[\s│]", "", text)


class Parsed(HTMLParser):
    """The elements, attributes and text of a page, its own scripts and styles aside."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.text, self._raw = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        self.text += "" if self._raw else data


def test_the_page_holds_the_string_as_text_alone(written):
    found = Parsed(written.read_text())
    assert [value for tag, name, value in found.attributes if name == "src"] == ["plotly.min.js"]
    assert found.tags.count("script") == 2 and not {"img", "iframe", "object", "embed", "form"} & set(found.tags)
    assert {name for _, name, _ in found.attributes} <= {
        "lang",
        "charset",
        "name",
        "content",
        "href",
        "id",
        "class",
        "style",
        "type",
        "data-key",
        "data-plot",
        "placeholder",
        "aria-label",
        "data-curves",
        "src",
        "value",
        "min",
        "max",
        "step",
        "checked",
        "tabindex",
    }
    for tag, name, value in found.attributes:
        if tag == "a":
            assert name == "href" and re.fullmatch(r"#[a-z]+|(figures|tables)/[A-Za-z0-9_][A-Za-z0-9_.-]*", value)
            assert value.startswith("#") or (written.parent / value).is_file(), value
    # title, lead, tables, figures' captions, contamination, what is missing, an experiment with its answers
    assert found.text.count(SHOWN) > 30
    assert f"Comparisons keep {SHOWN.replace('_', ' ')} equal" in found.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", found.text)


def test_figures_on_the_page_draw_the_string_as_text_alone(written):
    """plotly.js makes elements of the tags in labels: there are none."""
    plots = [json.loads(value) for _, name, value in Parsed(written.read_text()).attributes if name == "data-plot"]
    labels = [trace["name"] for plot in plots for trace in plot["data"]]
    labels += [plot["layout"]["title"]["text"] for plot in plots]
    read = [Parsed(label) for label in labels]
    assert any(SHOWN in label.text for label in read) and not any(label.tags for label in read)


def test_curves_on_the_page_draw_the_string_as_text_alone(written):
    (held,) = [value for _, name, value in Parsed(written.read_text()).attributes if name == "data-curves"]
    found = json.loads(held)
    names = [name for name, _ in found["runs"]]
    for stage in found["stages"].values():
        names += [stage["name"], *stage["training"]["values"], *stage["validation"]["values"]]
    read = [Parsed(name) for name in names]
    assert sum(SHOWN in name.text for name in read) >= 2 and not any(name.tags for name in read)


def test_report_json_holds_the_string_itself_and_is_all_that_the_page_is_made_of(written):
    text = written.with_name("report.json").read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert PLANTED in record["title"] and PLANTED in record["study"]["question"] and text.isascii()
    assert render.page(record) == written.read_text()


def test_no_cell_of_a_csv_is_a_formula(written):
    rows = [row for file in written.parent.rglob("*.csv") for row in csv.reader(file.open(newline=""))]
    cells = [cell for row in rows for cell in row]
    assert f"'{SHOWN}" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not is_number(cell)]


def is_number(cell: str) -> bool:
    try:
        return float(cell.removesuffix("%")) is not None
    except ValueError:
        return False


def test_numbers_stay_numbers():
    made = table.Table("t", "t", ["a"], [[-1], [-0.5], [("-1.5", -1.5)], ["+2.5%"], ["-1e-5"], ["-x"], ["+1+1"]])
    wanted = ["a", "-1", "-0.5", "-1.5", "+2.5%", "-1e-5", "'-x", "'+1+1"]
    assert table.to_csv(made).split() == wanted


def test_latex_reads_every_sign_as_text(written):
    for file in written.parent.rglob("*.tex"):
        head, *rows, _ = file.read_text().split("\\toprule\n")[1].split("\\bottomrule")[0].splitlines()
        width = len(re.sub(r"[^l]", "", file.read_text().splitlines()[0].rpartition("{")[2]))
        for row in (head, *rows):
            if row == r"\midrule":
                continue
            assert row.endswith(r" \\")
            # without what stands for a sign or parts cells, nothing special is left
            left = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|-\{\}|\{[\[*]\}|\{\\char34\}", "", row.removesuffix(r" \\"))
            assert left.count("&") == width - 1 and not set(left.replace("&", "")) & set('\\%$#_{}~^[<>|`"'), left
            assert not re.search(r"[\x00-\x1f\x7f-\x9f]", row)
    assert escaping.latex("a~b^c\\d") == r"a\textasciitilde{}b\textasciicircum{}c\textbackslash{}d"
    assert escaping.latex('[1] --k-a="x"\n*') == r"{[}1] -{}-k-a={\char34}x{\char34} {*}"


def test_pictures_are_whole_and_show_the_string_as_it_is(written):
    """Not as mathematics; SVG allows no control characters."""
    drawn = list((written.parent / "figures").glob("*.svg"))
    assert drawn
    for file in drawn:
        root = ElementTree.fromstring(file.read_text())
        assert not {element.tag.rpartition("}")[2] for element in root.iter()} & {"script", "a", "image"}
    assert any("$x^2$" in file.read_text() for file in drawn)  # matplotlib names every text in a comment


def test_nothing_is_written_outside_of_the_report(written, workdir):
    assert {file.name for file in workdir.parent.iterdir()} == {"workdir"}
    names = [file.name for file in written.parent.rglob("*")]
    assert len(names) > 20 and all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,130}", name) for name in names)
    assert {"report", "stages", "experiments", "studies", "failures", "contamination.json"} == {
        file.name for file in workdir.iterdir()
    }


def test_the_parquet_holds_the_string_itself(written):
    table = parquet.read_table(written.parent / "results.parquet")
    assert set(table["strategy"].to_pylist()) == {PLANTED} and set(table[PLANTED].to_pylist()) == {PLANTED}


@pytest.mark.parametrize("name", ["..", ".", "", "-x", ".hidden", "a/b", "a b", "ä" * 200, "x" * 300, "nul\0"])
def test_file_names_are_one_part_of_a_path_and_differ(name):
    made = escaping.file_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", made) and len(made) < 120 and made not in (".", "..")
    assert made != escaping.file_name(name + "?") and escaping.file_name("main-7b") == "main-7b"


@pytest.fixture(params=["a file", "a terminal"])
def console(request, capsys):
    """A console whose printed text `read` gives, without rich's own colours."""
    made = terminal.Console(width=100, force_terminal=request.param == "a terminal")
    made.seen = lambda: re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return made


def test_stored_responses_are_shown_as_text(workdir, console):
    for task in ("tiny_math", NAME):
        rows = responses.read(workdir / "stages" / f"{NAME}-s" / "eval" / task)
        responses.show(rows, console, PLANTED)
        text = console.seen()
        assert is_shown(text) and re.sub(r"[\s│]", "", text).count("".join(SHOWN.split())) > 4 * 5


def test_tables_in_the_terminal_show_text(workdir, console, capsys):
    found = results.read_results(workdir, results.read_studies(workdir)[NAME])
    wide = terminal.Console(width=5000)
    tables.print_abilities(found, wide)
    assert is_shown(capsys.readouterr().out)
    record = records.score(workdir / "stages" / f"{NAME}-s" / "eval" / NAME / "score.json")
    tables.print_score(record, console)
    assert is_shown(console.seen())
    judged = {"stored_judgments": 1, "unparsed": [PLANTED], "differing": [PLANTED]}
    tables.print_score(record | judged, console)
    assert is_shown(console.seen())
    for low in (0, 0.1):  # the second one's interval and p disagree: the caption names the metric
        tables.print_differences(PLANTED, PLANTED, PLANTED, [Difference(PLANTED, 1, 0, 1, low, 1, 0.5, 1)], console)
        assert is_shown(console.seen())
    tables.print_contamination(records.contamination(workdir / "contamination.json"))
    assert is_shown(capsys.readouterr().err)


def test_a_study_and_a_plan_are_shown_as_text(console, tmp_path):
    untrained = {"name": PLANTED, "experiments": [PLANTED], "is_trained": lambda workdir: False}
    jobs = [SimpleNamespace(id=str(i), **untrained) for i in range(3)]
    leases = SimpleNamespace(holder=lambda id: {"host": PLANTED, "pid": PLANTED} if id == "1" else None)
    workdir = epath.Path(tmp_path)
    console.print(watching.states(SimpleNamespace(name=PLANTED), jobs, {"2"}, {"0"}, workdir, leases, 1.0))
    assert is_shown(console.seen())
    values = {"str": PLANTED, "int": 1, "float": 1.0, "bool": False, "list[str]": [PLANTED]}
    each = Planned(**{f.name: values.get(f.type, {PLANTED: 2}) for f in dataclasses.fields(Planned)})
    each = dataclasses.replace(each, topology="v5e:2x2")
    printing.show(SimpleNamespace(name=PLANTED, model=SimpleNamespace(init=PLANTED)), [each], 0.4, console)
    assert is_shown(console.seen())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_sampled_answer_is_shown_as_text_and_whole_in_json(as_json, capsys):
    answer = PLANTED + "\ud800"  # half of a surrogate pair, which no terminal can be sent
    model = SimpleNamespace(
        chat=SimpleNamespace(tokenizer=SimpleNamespace(encode_plain=lambda text: [1])),
        sampler=SimpleNamespace(generate=lambda requests: [Response(answer, (1,), "stop") for _ in requests]),
    )
    asking.answer(model, [PLANTED], SamplingConfig(max_new_tokens=1), raw=True, as_json=as_json)
    text = capsys.readouterr().out
    if as_json:
        assert json.loads(text)["response"] == answer
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    else:
        assert text == SHOWN + "\\ud800\n"


def test_messages_and_errors_are_shown_as_text(capfd):
    processes.say(PLANTED)
    terminal.err(PLANTED)
    assert capfd.readouterr().err == f"{SHOWN}\n{SHOWN}\n"


ROWS = [
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": f"{PLANTED} {i}"}]}
    for i in range(12)
] + [{"messages": [{"role": "[/x]\x1b[31m", "content": "x"}, {"role": "assistant", "content": "x"}]}]
CONFIG = """
from sftmix_jax.experiment import strategies
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment.config import Experiment, Stage

def get_config():
    domains, stages = {"own": Source(PATH, bad_rows="skip")}, {"only": Stage({"own": Share(fraction=1.0)})}
    return Experiment("planted", domains, stages, template="chatml")
"""


def test_an_audit_shows_rows_and_roles_as_text(tmp_path):
    rows = tmp_path / f"{NAME}.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "planted.py").write_text(CONFIG.replace("PATH", repr(f"{tmp_path}/*.jsonl")))
    ended = run("sftmix_jax.audit", f"--config={tmp_path}/planted.py", "--examples=2")
    assert ended.returncode == 0, ended.stderr
    counts, _, example = ended.stdout.partition("own, row 0")
    assert not is_shown(counts) and r"1 rows skipped: unknown role '[/x]\x1b[31m'" in counts
    assert is_shown(example)


@pytest.mark.parametrize(
    "labels",
    [{"k": "=x", "strategy": "single", "source": "math", PLANTED: "\ud800"}, {"k": 0.5, "size": 7, "source": True}],
)
def test_a_report_is_written_whatever_the_labels_are(workdir, tmp_path, labels):
    file = workdir / "studies" / f"{NAME}.json"
    study = records.study(file)
    study["experiments"][NAME] |= labels
    assert report_files.write(report_files.read(workdir, study), epath.Path(tmp_path)).exists()


@pytest.mark.parametrize("seed", ["x", 1.5, -1, None])
def test_a_seed_is_a_number(workdir, tmp_path, seed):
    planted = records.study(workdir / "studies" / f"{NAME}.json")
    planted["experiments"][NAME]["seed"] = seed
    write(Path(tmp_path) / "studies" / "s.json", planted)
    with pytest.raises(UserError, match=r"s\.json: .* seed .* whole number"):
        results.read_studies(epath.Path(tmp_path))
    if seed is not None:
        made = study_of(seed)
        with pytest.raises(UserError, match=r"label seed=.* whole number"):
            made.check()


def study_of(seed) -> Study:
    config = experiment.read(["--config=quickstart.py"])
    return Study("s", "?", [Run(config, {"seed": seed})])


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_obeys_nothing_of_the_string(written, tmp_path):
    """Every fold is opened, so that every figure is drawn; a script of the string would change the title."""
    fold = "<script>for (const fold of document.querySelectorAll('details')) fold.open = true;</script></body>"
    opened = written.with_name("opened.html")
    opened.write_text(written.read_text().replace("</body>", fold))
    found = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=6000",
            f"--user-data-dir={tmp_path}/browser",
            "--dump-dom",
            f"file://{opened}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    opened.unlink()
    assert "CONSOLE" not in found.stderr, [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert found.stdout.count("js-plotly-plot") > 3
    # without plotly's own source, which has such words in it
    drawn = Parsed(found.stdout)
    assert "pwned" in drawn.text and not re.search(r"<title>\s*pwned\s*</title>", found.stdout)
    assert "img" not in drawn.tags and not [name for _, name, _ in drawn.attributes if name.startswith("on")]
    assert not [value for _, name, value in drawn.attributes if name.endswith("href") and "example.org" in value]


@pytest.mark.parametrize(
    "field",
    [
        "limit=-1",
        "limit=nan",
        "samples=0",
        "samples=-1",
        "temperature=nan",
        "temperature=inf",
        "temperature=-0.5",
        "judge.temperature=nan",
        "judge.judgings=0",
        "judge.limit=nan",
        "judge.timeout=nan",
        "judge.input_price=inf",
    ],
)
def test_numbers_without_a_meaning_are_refused_from_a_config_an_option_and_a_call(field, tmp_path):
    name, _, text = field.partition("=")
    with pytest.raises(UserError, match="must be"):
        experiment.read(["--config=quickstart.py", f"--config.evaluation.{field}"])
    option = name.replace("judge.judgings", "judgings").replace("judge.", "judge_").replace("input_price", "prices")
    with pytest.raises(UserError, match=rf"^--{option}.*: .*must be"):
        options.parse(evaluate.Options, ["--tasks=tiny_math", f"--{option}", text, *["1"] * ("price" in name)])
    value = float(text) if not re.fullmatch(r"-?\d+", text) else int(text)
    held, _, last = name.rpartition(".")
    judge = {last: value} if held else {}
    config = EvaluationConfig(judge=JudgeConfig(**judge), **({} if held else {last: value}))
    (tmp_path / "r.jsonl").write_text('{"id": "tiny_math/0", "response": "1"}\n')
    with pytest.raises(UserError, match=rf"evaluation\.{name}: .*must be"):
        runner.score_responses("tiny_math", epath.Path(tmp_path / "r.jsonl"), config)


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -1.0])
def test_a_task_without_a_real_temperature_is_refused(temperature):
    task, _ = find_task("tiny_math")
    config = EvaluationConfig()
    with pytest.raises(UserError, match=r"tiny_math: temperature: .*must be"):
        load_questions(dataclasses.replace(task, temperature=temperature), config)
    hot = [dataclasses.replace(question, temperature=temperature) for question in load_questions(task, config)]
    with pytest.raises(UserError, match=rf"{hot[0].id}: temperature: .*must be"):
        load_questions(dataclasses.replace(task, load=lambda _: hot), config)


def test_a_score_is_read_only_from_the_folder_of_its_task(workdir, tmp_path):
    """Its task becomes a part of paths: `../../x` would be looked for there."""
    for name in ("stages", "experiments", "studies"):
        shutil.copytree(workdir / name, tmp_path / name)
    file = epath.Path(tmp_path / "stages" / f"{NAME}-s" / "eval" / "tiny_math" / "score.json")
    records.write_score(file, records.score(file) | {"task": "../../x"})
    with pytest.raises(UserError, match=r"tiny_math/score\.json: is of the task \.\./\.\./x"):
        reporting.write(epath.Path(tmp_path))


@pytest.mark.parametrize("name", ["../x", "a/b", "", "/x"])
def test_a_task_is_no_path(tmp_path, name):
    (tmp_path / "own.py").write_text(
        "from sftmix_jax.evaluation.task import Metric, Task\n"
        f"TASK = Task(name={name!r}, load=list, metrics=(Metric('m'),), default_data='x')\n"
    )
    with pytest.raises(UserError, match=r"own\.py: its TASK is named .*; must be a name"):
        find_task(str(tmp_path / "own.py"))


@pytest.mark.parametrize("folder", ["runs[1]", "a*b", "?"])
def test_a_folder_whose_path_looks_like_a_pattern_is_searched_like_any_other(tmp_path, folder):
    """Else two trainers would both hold a lease in `runs[1]`, and a report would find nothing there."""
    first = Leases(epath.Path(tmp_path) / folder / "claims")
    with first.take("job") as mine, Leases(epath.Path(tmp_path) / folder / "claims").take("job") as other:
        assert mine and not other
        (found,) = files.matching(epath.Path(tmp_path) / folder / "claims", "job.*.json")
        assert found.name == "job.0.json" or found.name == "job.1.json"


def test_an_error_of_ours_is_shown_as_text(tmp_path):
    failing = (
        "import dataclasses\nfrom sftmix_jax.machine import command\n"
        "def main(options):\n    raise RuntimeError('\\x1b[31m')\n"
        "command.run(main, dataclasses.make_dataclass('Options', []))\n"
    )
    (tmp_path / "failing.py").write_text(failing)
    ended = subprocess.run(
        [sys.executable, tmp_path / "failing.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and "Traceback" in ended.stderr and r"RuntimeError: \x1b[31m" in ended.stderr


def test_rich_parts_that_no_function_of_ours_made_are_not_obeyed(console):
    """They may be cut, as rich measures them before; so the package makes them by `terminal.text`."""
    console.print(Text(PLANTED), Panel(Text(PLANTED)))
    text = console.seen()
    is_shown(text)  # fails for whatever a terminal obeys
    assert r"\x1b[31m" in text


@pytest.mark.parametrize("kind", ["slurm", "xpk", "sky"])
def test_a_script_of_jobs_runs_no_part_of_a_path(kind, tmp_path):
    """A shell that only records what it would run reads each argument back as it was."""
    folder = f"{tmp_path}/$(touch {tmp_path}/pwned)`touch {tmp_path}/pwned`;'\" x"
    made = emit.script(kind, "s", ["--config=x", f"--workdir={folder}"], [], folder)
    ended = subprocess.run(["bash", "-c", f"launch() {{ :; }}; {made}"], cwd=tmp_path, capture_output=True, check=False)
    assert not (tmp_path / "pwned").exists(), ended.stderr
    with pytest.raises(UserError, match="line break"):
        emit.script(kind, "s", [], [], "a\nreboot")
