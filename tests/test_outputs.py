"""One string in every field of a workdir, and a look at every output: it is shown as text, and obeyed nowhere."""

import json
import shutil

import pytest
from etils import epath

from sftmix_jax import records, report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What a spreadsheet, a browser, rich, a terminal, LaTeX, matplotlib and a path would each take for their own.
PLANTED = (
    "=cmd|'/C calc'!A0<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    '<a href="https://example.org">"\'&amp;[/x][bold]:smile:\x1b[31m\x1b]0;title\x07\x9b2J\r$x^2$ ~^_%$#{}\\ /../../..\x7f'
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
            {"id": f"{PLANTED}{i}", "turns": [PLANTED], "reference": {"answer": PLANTED}, "extracted": [PLANTED],
             "reasons": [PLANTED], "scores": {metric: best * (i % 2)},
             **({"samples": [[PLANTED], [PLANTED]]} if best == 10 else {"response": PLANTED})}
            for i in range(4)
        ]  # fmt: skip
        out.mkdir(parents=True)
        (out / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = {"value": best / 2, "n": 4, "low": best / 4, "high": best, "best": best}
        records.write_score(epath.Path(out / "score.json"), {
            "task": task, "model": PLANTED, "metrics": {metric: summary, f"{metric}, {PLANTED}": summary},
            "questions": 4, "missing": [PLANTED], "failures": {PLANTED: 4}, "warning": PLANTED,
            "judgments": 1, "judgments_known_before": 0, "judge_input_tokens": 0, "judge_output_tokens": 0,
            "judge_dollars": 0.0, "unparsed": [PLANTED], "failed": {PLANTED: PLANTED}, "flags": {PLANTED: [PLANTED]},
            "fixed_by": {"code_version": PLANTED, PLANTED: PLANTED, "judge": {"id": PLANTED}},
        })  # fmt: skip
    write(folder / "probe.json", {
        "settings": {PLANTED: PLANTED}, "domains": [PLANTED, "b"], "silhouette": {PLANTED: 0.5, "b": 0.5},
        "cosines": {PLANTED: {PLANTED: 0.5}}, "x": [0.0, 1.0], "y": [0.0, 1.0], "layer": PLANTED,
    })  # fmt: skip
    if not is_base:
        rows = {"used": 10, "stored": 12, "of them truncated": 1, "not taken": 2, "held out": 0,
                "skipped": {PLANTED: 1}, "without an answer within the length": 0}  # fmt: skip
        write(folder / "done.json", {
            "id": id, "digest": PLANTED, "steps": 2, "params_sha256": PLANTED,
            "ledger": {PLANTED: {"examples": 10, "tokens": 9, "trained_tokens": 9, "epochs": 1.0}},
            "rows": {PLANTED: rows}, "held_out_loss": {PLANTED: 0.5},
        })  # fmt: skip
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
    write(workdir / "contamination.json", {
        PLANTED: {"key": PLANTED, "of": 4, "questions": {PLANTED: [PLANTED]}}
    })  # fmt: skip
    return epath.Path(workdir)


@pytest.fixture(scope="module")
def written(workdir):
    (found,) = report.write(workdir)
    return found
