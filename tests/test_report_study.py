"""The report of a study over its own axes: they are as declared, the best set-up is the best, the figure is right."""

import csv
import io
import itertools
import json
import shutil
import subprocess

import numpy as np
import pytest
from etils import epath
from test_report_scores import of_two_own_axes

from sftmix_jax.analysis import (
    axes,
    axes_figure,
    best,
    cells,
    curves,
    outcomes,
    results,
    rule,
    tables,
    uncertain,
)
from sftmix_jax.analysis.outcomes import Outcome
from sftmix_jax.analysis.report import document, files, render
from sftmix_jax.machine import terminal
from sftmix_jax.studies import reporting
from sftmix_jax.workdir import records

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def declared(name, order=(), scale="linear", default=None):
    return {"name": name, "order": list(order), "scale": scale, "default": default}


def grid(**of):
    return [dict(zip(of, point, strict=True)) for point in itertools.product(*of.values())]


def test_axes_are_as_they_are_declared_and_in_that_order():
    setups = grid(lr=(2e-5, 1e-5), rows=(4, 2), strategy=("dmt",))
    found = axes.varied({"axes": [declared("rows", scale="log", default=4), declared("lr")]}, setups)
    assert [(a.name, a.values, a.scale, a.default) for a in found] == [
        ("rows", (2, 4), "log", 4),
        ("lr", (1e-5, 2e-5), "linear", None),
    ]
    (kind,) = axes.varied({"axes": [declared("kind", order=("b", "c", "a"))]}, grid(kind=("a", "b", "c")))
    assert (kind.values, kind.scale) == (("b", "c", "a"), "category")


def test_undeclared_axes_are_the_labels_that_differ_and_wide_ones_are_logarithmic():
    setups = grid(strategy=("a", "b"), lr=(1e-5, 1e-4, 1e-3), same=("x",))
    assert [(a.name, a.scale) for a in axes.varied({}, setups)] == [("lr", "log"), ("strategy", "category")]
    (narrow,) = axes.varied({}, grid(lr=(1e-5, 2e-5)))
    (parts,) = axes.varied({}, grid(k=("1", "1/16", "1/256")))
    (zero,) = axes.varied({}, grid(k=("1", "0", "1/256")))
    assert (narrow.scale, parts.scale, zero.scale) == ("linear", "log", "category")
    assert parts.values == ("1/256", "1/16", "1") and zero.values == ("0", "1/256", "1")


def test_labels_that_change_together_are_one_axis():
    setups = [{"lr": 1e-5, "rows": 64}, {"lr": 2e-5, "rows": 32}, {"lr": 5e-6, "rows": 16}]
    (found,) = axes.varied({"axes": [declared("lr", default=2e-5)]}, setups)  # rows tells no further ones apart
    assert (found.labels, found.values) == (("lr",), (5e-6, 1e-5, 2e-5))
    (both,) = axes.varied({}, setups)
    assert both.labels == ("lr", "rows") and both.values == ("5e-06, 16", "1e-05, 64", "2e-05, 32")
    assert axes.in_words([both], setups[0]) == "lr 1e-05, rows 64"


def test_beside_declared_axes_a_label_is_one_that_tells_further_set_ups_apart():
    setups = [{"k": "1", "setup": "a", "own": 1.0}, {"k": "1", "setup": "b", "own": 0.5}, {"k": "2", "setup": "a"}]
    found = axes.varied({"axes": [declared("k"), declared("setup")]}, setups)
    assert [axis.name for axis in found] == ["k", "setup"]
    found = axes.varied({"axes": [declared("k")]}, setups)
    assert [axis.name for axis in found] == ["k", "setup"]


def test_the_default_is_one_set_up_or_none():
    setups = grid(lr=(1e-5, 2e-5), rows=(2, 4))
    both = [declared("lr", default=2e-5), declared("rows", default=2)]
    assert axes.default(axes.varied({"axes": both}, setups), setups) == 2
    assert axes.default(axes.varied({"axes": both[:1]}, setups), setups) is None  # two set-ups have it
    assert axes.default(axes.varied({}, setups), setups) is None


def scores(means, best_possible=1.0, seeds=5, spread=0.01, questions=200):
    """A score per set-up with these means over seeds and questions."""
    rng = np.random.default_rng(0)
    hard, made = rng.uniform(size=questions), {}
    for number, mean in enumerate(means):
        of_seed = mean + rng.normal(0, spread, (seeds, 1))
        values = (hard < of_seed).astype(float) * (best_possible or 1.0)
        made[number] = uncertain.from_verdicts(values, best=best_possible, name=str(number), task="t")
    return Outcome("math", best_possible, made)


def test_a_clear_winner_holds_and_two_alike_cannot_be_told_apart():
    (clear,) = best.find([scores([0.2, 0.8, 0.5])], "set-up {}".format)
    assert (clear.setup, clear.next, clear.of, clear.finding.verdict) == (1, 2, 3, rule.HOLDS)
    assert clear.finding.numbers.startswith(f"{clear.lead.value:.1f} points (") and "set-up 2" in clear.finding.numbers
    (close,) = best.find([scores([0.5, 0.2, 0.53], spread=0.05)], str)
    assert close.setup == 2 and close.finding.verdict == rule.UNCLEAR and "80 %" in close.finding.numbers


def test_set_ups_with_the_same_score_share_the_place():
    (two,) = best.find([scores([0.5, 0.2, 0.5], spread=0)], str)
    assert two.leaders == (0, 2) and two.finding.verdict != rule.HOLDS
    (none,) = best.find([scores([0.0, 0.0, 0.0], spread=0)], str)
    assert none.leaders == () and none.of == 3
    (one,) = best.find([scores([0.2, 0.8, 0.5])], str)
    assert one.leaders == (1,)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_an_interval_holds_its_value(rate):
    """Of a mean of cells at the ends, whose draws are drawn inwards."""
    made = scores([rate, rate], spread=0, questions=6).scores
    both = uncertain.combined(lambda a, b: (a + b) / 2, made[0], made[1])
    assert both.low <= both.value <= both.high and both.value == rate


def test_the_best_must_be_better_than_every_other_and_not_the_next_alone():
    """The third lies lower than the next, and is so uncertain that it may be the best."""
    sure = scores([0.6, 0.5], spread=0.002)
    wild = scores([0.0, 0.0, 0.3], spread=0.3)
    (found,) = best.find([Outcome("math", 1.0, {**sure.scores, 2: wild.scores[2]})], str)
    assert (found.setup, found.next, found.finding.verdict) == (0, 1, rule.UNCLEAR)
    (two,) = best.find([sure], str)
    assert two.finding.verdict == rule.HOLDS


def test_one_run_gets_no_verdict_and_no_interval():
    (found,) = best.find([scores([0.2, 0.8], seeds=1)], str)
    assert found.finding.verdict == rule.ONE_RUN and "points better" in found.finding.numbers
    assert "(" not in found.finding.numbers


def test_the_best_is_compared_with_the_default_that_is_another():
    """What is better than every other is better than the default."""
    (found,) = best.find([scores([0.2, 0.8, 0.5])], str, default=0)
    assert (found.default, found.gain_finding.verdict) == (0, rule.HOLDS)
    values = found.outcome.scores
    assert found.gain.value == pytest.approx(100 * (values[1].value - values[0].value))
    for is_no_other in (1, 2):  # the best itself, or the next, with which it is compared anyway
        (found,) = best.find([scores([0.2, 0.8, 0.5])], str, default=is_no_other)
        assert found.default is None and found.gain_finding is None


def test_where_less_is_better_the_lowest_is_the_best():
    rng = np.random.default_rng(0)
    made = {i: uncertain.from_seeds((mean + rng.normal(0, 0.01, 4)).tolist()) for i, mean in enumerate((9.0, 7.0, 8.0))}
    (found,) = best.find([Outcome("perplexity", 0.0, made)], str)
    assert (found.setup, found.next, found.finding.verdict) == (1, 2, rule.HOLDS)
    assert found.lead.value == pytest.approx(1, abs=0.03) and "points" not in found.finding.numbers


def test_a_best_chosen_among_equals_is_rarely_said_to_hold():
    """Eight set-ups without a difference: at most 5 % of studies say that the best is one."""
    said = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        hard = rng.uniform(size=100)
        values = [
            (hard < 0.5 + rng.normal(0, 0.03, (4, 1)) + rng.normal(0, 0.1, (4, 100))).astype(float) for _ in range(8)
        ]
        made = {i: uncertain.from_verdicts(v, name=f"{trial} {i}", task="t") for i, v in enumerate(values)}
        said += best.find([Outcome("math", 1.0, made)], str)[0].finding.verdict == rule.HOLDS
    assert said <= 6  # 3 are expected at 5 %; more than 6 would be seen in 3 % of such tests


def test_the_next_of_many_is_rarely_said_to_be_as_good_where_it_is_not():
    """One set-up is 2 points better than fifteen alike: their best one looks closer to it than it is."""
    said = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        made = {
            i: uncertain.from_seeds((0.5 + 0.02 * (i == 0) + rng.normal(0, 0.015, 10)).tolist(), best=1.0)
            for i in range(16)
        }
        (found,) = best.find([Outcome("math", 1.0, made)], str)
        said += found.finding.verdict == rule.NO_EFFECT and 0 in (found.setup, found.next)
    assert said <= 9  # 5 are expected at 5 %; more than 9 would be seen in 3 % of such tests


def test_a_set_up_without_a_score_of_an_ability_is_no_other(tmp_path):
    """It must not get the score of the set-up that has one more label."""
    cell = uncertain.published(0.5, 0.1, "x")
    both = cells.Cells({("math", (("lr", 1),)): cell, ("code", (("lr", 1), ("rows", 2))): cell}, "by hand", 1)
    assert both.at("code", lr=1) is None and both.at("code", lr=1, rows=2) is cell
    assert both.exactly("code", {"lr": 1}) is None and both.exactly("math", {"lr": 1}) is cell


def drawn(study, setups, values, best_possible=1.0):
    made = {
        i: uncertain.published(value, 0.01, str(i), (value - 0.02, value + 0.02))
        for i, value in enumerate(values)
        if value is not None
    }
    figure = axes_figure.draw(axes.varied(study, setups), setups, [Outcome("math", best_possible, made)])
    return (
        None
        if figure is None
        else {
            (panel.title, line.name, x): (y, low, high)
            for panel in figure.panels
            for line in panel.lines
            for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
        }
    )


def test_the_figure_has_every_score_once_at_its_place():
    setups = grid(lr=(1e-5, 1e-4), rows=(2, 4))
    found = drawn({"axes": [declared("lr", scale="log"), declared("rows")]}, setups, [0.1, 0.2, 0.3, 0.4])
    assert {key: point[0] for key, point in found.items()} == {
        ("math", f"rows {s['rows']}", s["lr"]): pytest.approx(y) for s, y in zip(setups, (10, 20, 30, 40), strict=True)
    }
    assert found["math", "rows 2", 1e-5][1:] == pytest.approx((8, 12))


def test_axes_that_are_varied_at_once_and_a_score_without_a_best_are_drawn_as_they_are():
    setups = [{"lr": 1e-5, "rows": 64}, {"lr": 2e-5, "rows": 32}, {"lr": 4e-5, "rows": 16}]
    found = drawn({}, setups, [9.5, 7.25, 8.0], best_possible=0.0)
    assert {key: point[0] for key, point in found.items()} == {
        ("math", "math", "1e-05, 64"): 9.5,
        ("math", "math", "2e-05, 32"): 7.25,
        ("math", "math", "4e-05, 16"): 8.0,
    }


def test_a_set_up_without_the_axis_is_a_level_and_one_without_a_score_is_absent():
    setups = [{"strategy": "all"}, {"strategy": "dmt", "k": "1/4"}, {"strategy": "dmt", "k": "1"}, {"strategy": "x"}]
    found = drawn({"axes": [declared("k", order=("1/4", "1")), declared("strategy")]}, setups, [0.5, 0.1, 0.2, None])
    assert {key: round(point[0]) for key, point in found.items()} == {
        ("math", "all", "1/4"): 50,
        ("math", "all", "1"): 50,
        ("math", "dmt", "1/4"): 10,
        ("math", "dmt", "1"): 20,
    }


def test_more_lines_than_can_be_told_apart_stand_in_panels_of_their_own():
    setups = grid(lr=(1, 2), rows=(1, 2, 3, 4), kind=("a", "b", "c"))
    found = drawn({"axes": [declared("lr"), declared("rows"), declared("kind")]}, setups, np.linspace(0.1, 0.9, 24))
    panels = {title: {line for of, line, _ in found if of == title} for title, _, _ in found}
    assert len(found) == 24 and all(len(lines) <= 6 for lines in panels.values())
    assert set(panels) == {f"math: kind {kind}" for kind in "abc"}


def test_nothing_is_drawn_where_nothing_varies():
    assert drawn({}, [{"lr": 1}], [0.5]) is None and drawn({}, [{"lr": 1}, {"lr": 2}], [0.5, None]) is None


def test_the_mean_of_abilities_weights_each_by_its_best():
    cell = {("math", (("k", 1),)): 0.5, ("general", (("k", 1),)): 8.0, ("ppl", (("k", 1),)): 3.0}
    made = {key: uncertain.published(value, 0.0, str(key)) for key, value in cell.items()}
    of = cells.Cells(made, "by hand", 1, best={"math": 1.0, "general": 10.0, "ppl": 0.0})
    found = {outcome.name: outcome for outcome in outcomes.of_study(of, [{"k": 1}, {"k": 2}])}
    assert found[outcomes.MEAN].scores[0].value == pytest.approx(0.65) and list(found[outcomes.MEAN].scores) == [0]


def test_report_json_says_what_the_page_shows(tmp_path, undrawn):
    worth = of_two_own_axes(tmp_path)
    (page,) = reporting.write(epath.Path(tmp_path))
    record = json.loads((page.parent / "report.json").read_text())
    assert render.page(record) == page.read_text() and record["kind"] == "study"
    found = {(s["labels"]["learning_rate"], s["labels"]["rows"]): s["scores"]["sums"] for s in record["settings"]}
    assert {key: score["value"] for key, score in found.items()} == pytest.approx(worth)
    assert all(score["low"] < score["value"] < score["high"] and score["seeds"] == 2 for score in found.values())
    assert [section["title"] for section in record["sections"]][:2] == ["Best set-up", "Scores in detail"]
    first = record["sections"][0]["parts"]
    assert [part["kind"] for part in first] == ["answers", "text", "figure", "table"]
    assert first[0]["answers"][0]["setting"] == "learning_rate 2e-05, rows 4"
    assert record["curves"]["runs"].keys() == record["study"]["experiments"].keys()
    assert record["not_measured"] == "" and "not-measured" not in page.read_text()


def test_the_terminal_shows_the_main_table_whole_at_80_columns(tmp_path, undrawn):
    of_two_own_axes(tmp_path)
    (page,) = reporting.write(epath.Path(tmp_path))
    written = io.StringIO()
    tables.print_made(reporting.main_table(page), terminal.Console(width=80, file=written))
    shown, text = written.getvalue().splitlines(), (page.parent / "tables" / "main.csv").read_text()
    assert all(len(line) <= 80 for line in shown) and "…" not in written.getvalue()
    for row in csv.DictReader(io.StringIO(text)):
        cells_ = [row["learning_rate"], row["rows"], row["sums"].partition(" ")[0]]
        assert any(line.split()[:3] == cells_ for line in shown), cells_


def test_what_was_not_measured_is_one_line_at_the_end(tmp_path, undrawn):
    of_two_own_axes(tmp_path)
    file = tmp_path / "studies" / "two.json"
    record = json.loads(file.read_text())
    record["experiments"]["later"] = {
        "strategy": "dmt",
        "k": "1/16",
        "size": "tiny",
        "seed": 0,
        "learning_rate": 9e-5,
        "rows": 2,
    }
    file.write_text(json.dumps(record))
    (page,) = reporting.write(epath.Path(tmp_path))
    assert page.read_text().index("Not measured:") > page.read_text().index("<h2>Experiments</h2>")
    made = json.loads((page.parent / "report.json").read_text())
    assert made["not_measured"] == (
        "Not measured: 1 of 5 set-ups (learning_rate 9e-05, rows 2); parts of 1 of 9 experiments (later)."
    )
    assert made["missing"] == ["later: not started"]


def test_a_workdir_without_a_study_gets_a_report_of_its_runs(tmp_path):
    of_two_own_axes(tmp_path)
    shutil.rmtree(tmp_path / "studies")
    for file in sorted((tmp_path / "experiments").glob("*.json"))[1:]:
        file.unlink()
    (page,) = reporting.write(epath.Path(tmp_path))
    record = json.loads((page.parent / "report.json").read_text())
    assert record["kind"] == "run" and record["title"] == "Run: dmt-1e-05-2-s0"
    assert [section["title"] for section in record["sections"]] == [
        "Scores over stages",
        "Training",
        "Data and stages",
        "Answers before and after",
        "Config",
    ]
    asked = [part["question"] for part in record["sections"][3]["parts"]]
    assert asked == ["own/2", "own/0"]  # gained: the third question; as before: the first; lost: none
    head = (page.parent / "tables" / "benchmarks.csv").read_text().splitlines()[0]
    assert head == "run,after,own right"


def test_a_run_without_scores_has_a_report_too(tmp_path):
    of_two_own_axes(tmp_path)
    shutil.rmtree(tmp_path / "studies")
    for folder in (tmp_path / "stages").iterdir():
        shutil.rmtree(folder / "eval")
    (page,) = reporting.write(epath.Path(tmp_path))
    record = json.loads((page.parent / "report.json").read_text())
    assert "any score: evaluate has not been run" in record["not_measured"]
    assert [section["title"] for section in record["sections"]] == ["Training", "Data and stages", "Config"]


def test_curves_are_those_of_metrics_jsonl(tmp_path):
    rows = [
        {"step": 1, "loss": 2.0, "loss/a": 2.0, "grad_norm": 1.0, "learning_rate": 0.1, "tokens": 10, "seconds": 1.0},
        {"step": 2, "loss": 1.0, "loss/b": 1.0, "grad_norm": 1.0, "learning_rate": 0.1, "tokens": 30, "seconds": 2.0},
        {"step": 2, "validation_loss/a": 3.0},
        {"step": 4, "loss": 0.5, "loss/a": float("nan"), "grad_norm": 1.0, "tokens": 10, "seconds": 4.0},
    ]
    found = curves.of_stage("s", rows)
    assert found.training.step == [1, 2, 4] and found.steps == 4
    assert found.training.values["loss/a"] == [2.0, None, None] and found.training.values["loss/b"] == [None, 1.0, None]
    assert found.training.values["tokens_per_second"] == [None, 20.0, 20.0]
    assert found.training.values["learning_rate"] == [0.1, 0.1, None]
    assert found.validation.step == [2] and found.validation.values == {"validation_loss/a": [3.0]}


def test_long_curves_are_thinned_and_keep_their_start_and_their_end():
    rows = [{"step": i, "loss": 1.0 / i} for i in range(1, 5001)]
    stage = curves.of_stage("s", rows)
    assert curves.thinned({"a": stage}) == ({"a": stage}, False)
    made, was_thinned = curves.thinned({str(i): stage for i in range(100)})
    step = made["0"].training.step
    assert was_thinned and step[:16] == list(range(1, 17)) and step[-1] == 5000 and len(step) == 600
    assert all(made["0"].training.values["loss"][i] == pytest.approx(1 / s, rel=1e-4) for i, s in enumerate(step))


def test_a_figure_of_losses_draws_each_loss_at_its_own_step(tmp_path):
    """A domain that is absent from a step has no point there."""
    of_two_own_axes(tmp_path)
    for file in (tmp_path / "stages").glob("general-*/metrics.jsonl"):
        file.write_text('{"step": 1, "loss": 2, "loss/sums": 2}\n{"step": 2, "loss": 1, "loss/b": 1}\n')
    study = results.read_studies(epath.Path(tmp_path))["two"]
    (losses,) = [figure for figure in files.read(epath.Path(tmp_path), study).figures if figure.name == "losses"]
    points = {line.name: (line.x, line.y, line.bare) for line in losses.panels[0].lines}
    assert points == {"sums": ([1.0], [2.0], False), "b": ([2.0], [1.0], False)}  # few points have marks


def test_numbers_that_are_not_finite_are_null_in_report_json():
    made = document.Document("run", "t", [], [], [], "", {"x": float("nan"), "y": np.float64(2), "z": (np.int64(1),)})
    assert made.record()["study"] == {"x": None, "y": 2.0, "z": [1]}


def test_the_script_stands_in_the_page_by_choice(tmp_path, undrawn):
    of_two_own_axes(tmp_path)
    (beside,) = reporting.write(epath.Path(tmp_path))
    assert beside.stat().length < 100_000 and (beside.parent / "plotly.min.js").exists()
    out = epath.Path(tmp_path) / "alone"
    (inside,) = reporting.write(epath.Path(tmp_path), out=out, inline=True)
    assert "src=" not in inside.read_text().replace(render.plotly_source(), "")
    assert not (out / "plotly.min.js").exists()


def test_the_page_of_forty_experiments_stays_under_a_megabyte(tmp_path):
    """55 stages of 3,000 steps with three domains; sizes are those of the page, without plotly's script."""
    rng = np.random.default_rng(0)
    names = ("loss", "loss/math", "loss/code", "loss/general", "grad_norm", "learning_rate")
    rows = [
        {"step": s, **{name: float(rng.uniform()) for name in names}, "tokens": 600, "seconds": s / 9}
        for s in (*range(1, 10), *range(10, 3001, 10))
    ]
    stages, _ = curves.thinned({str(i): curves.of_stage("general", rows) for i in range(55)})
    runs = {f"experiment-{i}": [str(i), str(i + 15)] for i in range(40)}
    section = document.Section("training", "Training", [document.curves("", "")])
    made = document.Document("study", "t", [], [section], [], "", {}, [], document.curve_data(stages, runs))
    assert len(render.page(made.record())) < 700_000


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_nothing_is_wider_than_a_narrow_screen_and_chosen_runs_are_compared(tmp_path, undrawn):
    """390 px, in a frame, as Chromium's own windows are wider; its own width is read from within."""
    of_two_own_axes(tmp_path)
    (page,) = reporting.write(epath.Path(tmp_path))
    measure = """<script>
const boxes = [...document.querySelectorAll('.runs input')], before = document.querySelectorAll('.curves .legendtext');
boxes.forEach((box, i) => { box.checked = i === 1; });
document.querySelector('.controls').dispatchEvent(new Event('input'));
setTimeout(() => {
  const drawn = document.querySelector('.curves .js-plotly-plot').data.map(trace => trace.name + ' ' + trace.mode);
  parent.postMessage([document.documentElement.scrollWidth, innerWidth, drawn], '*');
}, 500);
</script></body>"""
    (page.parent / "measured.html").write_text(page.read_text().replace("</body>", measure))
    frame = """<body><iframe src="measured.html" style="width:390px;height:900px;border:0"></iframe><p></p>
<script>addEventListener('message', event => { document.querySelector('p').textContent = JSON.stringify(event.data); })
</script>"""
    (page.parent / "frame.html").write_text(frame)
    found = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=8000",
            f"--user-data-dir={tmp_path}/browser",
            "--dump-dom",
            f"file://{page.parent}/frame.html",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    ).stdout
    width, inner, traces = json.loads(found.split("<p>")[1].split("</p>")[0])
    assert width <= inner == 390
    assert traces == ["sums lines+markers"]  # one run is chosen: its domain, with marks as there are two points


def test_the_record_of_a_study_is_read_with_its_axes(tmp_path):
    of_two_own_axes(tmp_path)
    file = tmp_path / "studies" / "two.json"
    held = json.loads(file.read_text())
    held["axes"] = [declared("rows", order=(4.0, 2.0), default=4.0), declared("learning_rate", scale="log")]
    file.write_text(json.dumps(held))
    made = files.read(epath.Path(tmp_path), results.read_studies(epath.Path(tmp_path))["two"])
    assert [(axis.name, axis.values, axis.scale) for axis in made.axes] == [
        ("rows", (4, 2), "category"),
        ("learning_rate", (1e-5, 2e-5), "log"),
    ]
    assert made.main_table.columns[:2] == ["rows", "learning_rate"]
    assert [row[0] for row in made.main_table.rows] == [4, 4, 2, 2]
    assert records.study(epath.Path(file))["axes"] == held["axes"]
