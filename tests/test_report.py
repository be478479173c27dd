"""The report in a real browser: it opens without errors, every section is there, a click sorts."""

import contextlib
import csv
import io
import json
import re
import shutil
import subprocess

import pytest
from etils import epath

from sftmix_jax.analysis import results
from sftmix_jax.analysis.report import files
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies import reporting
from sftmix_jax.workdir import records

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCORES = {"tiny_math": ("strict", 1.0), "tiny_code": ("pass@1", 1.0), "tiny_general": ("rating", 10.0)}


def stage(workdir, name, id, parent, worth: float, tokens: int):
    """A finished stage as a run leaves it."""
    folder = workdir / "stages" / f"{name}-{id}"
    for task, (metric, best) in SCORES.items():
        out = folder / "eval" / task
        out.mkdir(parents=True)
        given = [best * ((i + 0.5) / 40 < worth) for i in range(40)]
        common = {"turns": ["question <b>?"], "response": "answer", "reference": {}}
        rows = [{"id": f"{task}/{i}", **common, "scores": {metric: v}} for i, v in enumerate(given)]
        value = sum(given) / 40
        metrics = {metric: {"value": value, "n": 40, "low": value, "high": value, "best": best}}
        metrics[f"{metric}, easy"] = {"value": value / 2, "n": 20, "low": 0.0, "high": best, "best": best}
        record = {
            "task": task,
            "ability": task.removeprefix("tiny_"),
            "model": name,
            "metrics": metrics,
            "fixed_by": {"code_version": "0"},
        }
        records.write_scored(epath.Path(out), rows, record)
    if parent:
        rows = {
            "used": 10,
            "stored": 12,
            "of them truncated": 1,
            "not taken": 2,
            "held out": 0,
            "skipped": {},
            "without an answer within the length": 0,
        }
        account = {"examples": 10, "tokens": tokens, "trained_tokens": tokens, "epochs": 1.0}
        done = {
            "id": id,
            "digest": "",
            "steps": 2,
            "params_sha256": "",
            "ledger": {"math": account},
            "rows": {"math": rows},
            "validation_loss": {"math": 0.5},
        }
        (folder / "done.json").write_text(json.dumps(done))
        (folder / "metrics.jsonl").write_text(
            '{"step": 1, "loss": 2, "loss/math": 2}\n{"step": 2, "loss": 1, "loss/math": 1}\n'
        )


def two_strategies(folder) -> epath.Path:
    """Over two seeds; one experiment is not finished."""
    stage(folder, "base", "b", None, 0.0, 0)
    (folder / "experiments").mkdir()
    labels = {}
    for seed in range(2):
        stage(folder, "specialised", f"s{seed}", "b", 0.6, 100)
        for strategy, k, worth in (("mixed_sequential", "0", 0.1), ("dmt", "1/256", 0.5)):
            id, name = f"{strategy}{seed}", f"{strategy}-s{seed}"
            if (strategy, seed) != ("dmt", 1):
                stage(folder, "general", id, "s", worth + 0.05 * seed, 100)
            record = {"experiment": {"name": name}, "base": "b", "stages": {"specialised": f"s{seed}", "general": id}}
            (folder / "experiments" / f"{name}.json").write_text(json.dumps(record))
            labels[name] = {"strategy": strategy, "k": k, "size": "tiny", "seed": seed}
    (folder / "studies").mkdir()
    study = {"name": "toy", "question": "Does <it> show?", "hold": "epochs", "experiments": labels}
    (folder / "studies" / "toy.json").write_text(json.dumps(study))
    return epath.Path(folder)


@pytest.fixture
def workdir(tmp_path):
    return two_strategies(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of such a workdir, and what was said meanwhile."""
    workdir = two_strategies(tmp_path_factory.mktemp("written"))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        (page,) = reporting.write(workdir)
    return page, said.getvalue()


def test_the_report_has_every_part_and_says_what_is_missing(written):
    page, _ = written
    text = page.read_text()
    sections = re.findall("<h2>(.*?)</h2>", text)
    assert sections == [
        "Best set-up",
        "Scores in detail",
        "Training",
        "The paper&#x27;s findings",
        "Data and stages",
        "Experiments",
    ]
    assert "dmt-s1: its stage general is not trained" in text
    assert ("<p>Not measured: parts of 1 of 4 experiments (dmt-s1); 9 of the paper&#x27;s findings.</p>") in text
    assert "Does &lt;it&gt; show?" in text and "question &lt;b&gt;?" in text
    for file in (
        "results.csv",
        "results.parquet",
        "tables/main.csv",
        "tables/verdicts.tex",
        "figures/replay.svg",
        "figures/replay.pdf",
        "figures/losses.svg",
        "figures/groups.svg",
        "figures/own_axes.svg",
        "plotly.min.js",
        "report.json",
    ):
        assert (page.parent / file).exists(), file
    metrics = (page.parent / "tables" / "metrics.csv").read_text().splitlines()
    assert metrics[0].endswith('"tiny_code pass@1, easy","tiny_general rating, easy","tiny_math strict, easy"')
    # two seeds: 4 and 6 of 40 questions right, of which the category has half
    assert next(line for line in metrics if line.startswith("mixed_sequential")).endswith("6.2%")
    assert "http" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)  # nothing is fetched


def test_a_row_whose_answer_lies_behind_the_length_is_no_bad_row(workdir, undrawn):
    (file,) = workdir.glob("stages/specialised-s0/done.json")
    record = json.loads(file.read_text())
    record["rows"]["math"] |= {"skipped": {"an empty answer": 3}, "without an answer within the length": 7}
    file.write_text(json.dumps(record))
    (page,) = reporting.write(workdir)
    with (page.parent / "tables" / "accounts.csv").open() as stream:
        rows = {row["stage"]: (row["cut whole"], row["skipped"]) for row in csv.DictReader(stream)}
    assert rows["specialised (s0)"] == ("7", "3") and rows["general (dmt0)"] == ("0", "0")


def test_a_stage_that_is_being_trained_can_be_looked_at(workdir, undrawn):
    """Another machine is in the middle of a line of its metrics."""
    (file,) = workdir.glob("stages/general-dmt0/metrics.jsonl")
    file.write_text(file.read_text() + '{"step": 3, "lo')
    (page,) = reporting.write(workdir)
    assert "dmt-s0" in page.read_text()


def test_damaged_lines_of_metrics_are_left_out_and_told(workdir, undrawn, capsys):
    (file,) = workdir.glob("stages/general-dmt0/metrics.jsonl")
    first, second = file.read_text().splitlines()
    file.write_text("\n".join([first, second[:9], "[]", '{"loss": 1}', second]))
    reporting.write(workdir)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if str(file) in line]
    assert told == f"{file}: damaged lines are left out of the curves: 2, 3, 4"


def test_lost_metrics_of_a_finished_stage_are_told_and_the_other_stages_drawn(workdir, capsys):
    file = workdir / "stages" / "specialised-s0" / "metrics.jsonl"
    file.unlink()
    (page,) = reporting.write(workdir)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if str(file) in line]
    assert told == f"{file}: is missing though the stage is finished; the curves have a gap there"
    figures = files.read(workdir, results.read_studies(workdir)["toy"]).figures
    panels = {panel.title for figure in figures if figure.name == "losses" for panel in figure.panels}
    assert "dmt-s0: specialised → general" in panels and page.exists()


def test_a_stage_that_is_not_trained_has_lost_nothing(written):
    assert "is missing" not in written[1]


def test_two_folders_of_one_stage_are_refused_and_other_folders_do_no_harm(workdir, undrawn):
    stages = workdir / "stages"
    for name in ("a-copy", "b-copy", "notes"):
        (stages / name).mkdir()
    reporting.write(workdir)
    shutil.copytree(stages / "general-dmt0", stages / "backup-dmt0")
    with pytest.raises(UserError, match="backup-dmt0 and general-dmt0 are the same stage"):
        reporting.write(workdir)


def test_the_table_is_tidy(workdir):
    found = results.read_results(workdir, results.read_studies(workdir)["toy"])
    last = [r for r in found if r.experiment == "dmt-s0" and r.task == "tiny_math" and r.primary]
    assert [(r.stage, r.position, r.is_last, r.own_tokens) for r in last] == [
        ("base", 0, False, 0),
        ("specialised", 1, False, 100),
        ("general", 2, True, 200),
    ]


def test_scores_that_were_fixed_otherwise_do_not_stand_beside_the_others(workdir, undrawn):
    (file,) = workdir.glob("stages/general-dmt0/eval/tiny_math/score.json")
    record = records.score(epath.Path(file))
    records.write_score(epath.Path(file), {**record, "fixed_by": {**record["fixed_by"], "data": "other"}})
    found = results.read_results(workdir, results.read_studies(workdir)["toy"])
    stands, told = results.comparable(found)
    assert {(r.experiment, r.stage, r.task) for r in found} - {(r.experiment, r.stage, r.task) for r in stands} == {
        ("dmt-s0", "general", "tiny_math")
    }
    assert told == [
        "dmt-s0, after general: tiny_math was scored in another way than the others (data: other, not None) and is "
        "left out; score it again like them"
    ]
    (page,) = reporting.write(workdir)
    assert told[0] in page.read_text()


def test_a_score_that_was_changed_by_hand_stands_in_no_report(workdir):
    (file,) = workdir.glob("stages/general-dmt0/eval/tiny_math/score.json")
    record = json.loads(file.read_text())
    record["metrics"]["strict"]["value"] = 0.9
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"general-dmt0/eval/tiny_math/score\.json: has changed.*; evaluate again"):
        reporting.write(workdir)


def test_a_verdict_that_was_changed_by_hand_stands_in_no_report(workdir):
    (file,) = workdir.glob("stages/general-dmt0/eval/tiny_math/responses.jsonl")
    file.write_text(file.read_text().replace('"strict": 0.0', '"strict": 1.0', 1))
    with pytest.raises(UserError, match=r"general-dmt0/eval/tiny_math/responses\.jsonl: has changed since"):
        reporting.write(workdir)


def test_questions_that_a_seed_has_no_verdict_on_are_left_out_and_told(workdir, undrawn):
    """A judge that gave no rating once must not take the whole cell away."""
    (file,) = workdir.glob("stages/general-mixed_sequential1/eval/tiny_general/responses.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["scores"] = {"rating": None}
    records.write_scored(epath.Path(file).parent, rows, records.score(epath.Path(file).with_name("score.json")))
    (page,) = reporting.write(workdir)
    assert "1 of 40 questions of tiny_general have no verdict for some seed" in page.read_text()
    main = (page.parent / "tables" / "main.csv").read_text().splitlines()
    row = next(line for line in main if line.startswith("mixed_sequential"))
    assert '"1.' in row or ",1." in row  # (3 + 5) / 2 / 39 of ten


def test_model_sizes_stand_beside_each_other(workdir, undrawn):
    """A study of two sizes has the tables of each, the smaller first."""
    file = workdir / "studies" / "toy.json"
    record = json.loads(file.read_text())
    for name, labels in record["experiments"].items():
        labels["size"] = "13b" if name.endswith("s1") else "7b"
    file.write_text(json.dumps(record))
    stage(workdir, "general", "dmt1", "s", 0.4, 100)
    (page,) = reporting.write(workdir)
    found = {file.stem for file in (page.parent / "tables").glob("*.csv")}
    assert {"main", "benchmarks-7b", "benchmarks-13b", "verdicts-7b", "verdicts-13b", "accounts"} <= found
    sizes = [line.split(",")[2] for line in (page.parent / "tables" / "main.csv").read_text().splitlines()]
    assert sizes == ["size", "7b", "13b", "7b", "13b"]
    text = page.read_text()
    assert text.index("<h3>7b</h3>") < text.index("<h3>13b</h3>") and "On 13b, of the paper" in text
    assert text.count("one run</span>") >= 4  # each size has one seed, so that no comparison gets a verdict
    verdicts = (page.parent / "tables" / "verdicts-13b.csv").read_text()
    assert "one run" in verdicts and "holds" not in verdicts.replace("paper, 13b", "").split("one run")[0]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_it_opens_in_a_browser_without_errors_and_a_click_sorts(written, tmp_path):
    page, _ = written
    click = """<script>
document.querySelector('#table-main th:nth-child(3) button').click();
const filter = document.querySelector('#table-benchmarks input');
filter.value = 'mixed_sequential general';
filter.dispatchEvent(new Event('input'));
for (const fold of document.querySelectorAll('details')) fold.open = true;
</script></body>"""
    (page.parent / "clicked.html").write_text(page.read_text().replace("</body>", click))
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
            f"file://{page.parent}/clicked.html",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "CONSOLE" not in found.stderr, [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert found.stdout.count("js-plotly-plot") >= 3 and 'aria-sort="ascending"' in found.stdout
    main = found.stdout.split('id="table-main"')[1].split("</table>")[0]
    first = r'<tr>\s*<td.*?</td>\s*<td.*?</td>\s*<td[^>]*data-key="([\d.]+)"'
    keys = [float(key) for key in re.findall(first, main)]
    assert len(keys) == 2 and keys == sorted(keys)
    benchmarks = found.stdout.split('id="table-benchmarks"')[1].split("</table>")[0]
    shown = re.findall(r"<tr>(.*?)</tr>", benchmarks, flags=re.S)
    assert len(shown) == 2 and "mixed_sequential" in shown[1]  # the head, and the one row with both words
    training = found.stdout.split("<h2>Training</h2>")[1].split("<h2>")[0]
    assert training.count("js-plotly-plot") == 1  # the fixture's metrics hold losses alone
