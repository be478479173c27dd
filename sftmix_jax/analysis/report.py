"""A study's report: what was asked, what was found, and everything that it rests on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from etils import epath

from sftmix_jax.analysis import cells, drawing, figures, findings, laws, page, results, uncertain
from sftmix_jax.analysis.cells import BEST, Cells
from sftmix_jax.analysis.figures import Figure
from sftmix_jax.analysis.page import Section, Table
from sftmix_jax.analysis.results import Result

_PAPER_SIZES = ("7b", "13b", "33b")
_EXAMPLES = 12  # experiments whose responses are shown


class Report:
    """One study of one workdir, read once."""

    def __init__(self, workdir: epath.Path, study: dict[str, Any]):
        self.workdir, self.study = workdir, study
        self.experiments = results.read_experiments(workdir)
        self.results, self.set_aside = results.comparable(results.read_results(workdir, study))
        sizes = sorted({str(labels.get("size", "")) for labels in study["experiments"].values()})
        self.size = sizes[0]
        self.ours = cells.measured(self.results, self.size)
        self.paper_size = self.size if self.size in _PAPER_SIZES else "7b"
        self.paper = cells.published(self.paper_size)

    @property
    def title(self) -> str:
        return f"{self.study['name']}: {self.study['question']}" if self.study["question"] else "Experiments"

    # --- what was found -------------------------------------------------------------------------

    def lead(self) -> str:
        """The study in a sentence."""
        found = findings.find(self.ours)
        told = [f for f in found if f.verdict != "not measured"]
        counts = {v: sum(f.verdict == v for f in told) for v in ("holds", "does not", "cannot tell")}
        experiments = len(self.study["experiments"])
        seeds = self.ours.seeds
        sure = (
            f"over {seeds} seeds; intervals are over seeds and questions" if seeds > 1
            else "with one seed: intervals are over questions alone and say nothing about another seed"
        )  # fmt: skip
        return (
            f"{experiments} experiments, {sure}. Comparisons keep {self.study['hold'].replace('_', ' ')} equal. Of the "
            f"paper's findings that this study can test {counts['holds']} hold, {counts['does not']} do not, and of "
            f"{counts['cannot tell']} these numbers cannot tell."
        )

    def verdicts(self) -> Table:
        theirs = {finding.claim: finding for finding in findings.find(self.paper)}
        rows = []
        for ours in findings.find(self.ours):
            paper = theirs[ours.claim]
            rows.append([ours.question, ours.claim, ours.verdict, ours.numbers, paper.verdict, paper.numbers])
        columns = [
            "RQ",
            "the paper's finding",
            "here",
            "numbers here",
            f"paper, {self.paper_size}",
            "numbers of the paper",
        ]
        return Table("verdicts", columns, rows, findings.RULE)

    def main_table(self) -> Table:
        """Every set-up's final scores, with the paper's beside them where it has the same."""
        setups = dict.fromkeys(r.setup for r in self.results if r.is_last)
        rows = []
        for setup in setups:
            labels = {key: value for key, value in setup if value not in ("", None) and key != "size"}
            row: list[Any] = [labels.pop("strategy", ""), ", ".join(f"{key} {value}" for key, value in labels.items())]
            for ability in self.ours.abilities:
                row += [_shown(self.ours, ability, setup), _shown(self.paper, ability, setup, interval=False)]
            rows.append(row)
        columns = ["strategy", "set-up"]
        for ability in self.ours.abilities:
            columns += [ability, f"{ability}, paper {self.paper_size}"]
        caption = f"Final scores with 95 % intervals, {self.ours.source}; rates in %, general from 1 to 10."
        return Table("main", columns, rows, caption)

    def changes(self) -> Table:
        """What each stage did to each ability: forgetting is what is lost."""
        rows = []
        for setup in dict.fromkeys(r.setup for r in self.results):
            mine = [r for r in self.results if r.setup == setup and r.primary]
            stages = dict.fromkeys((r.position, r.stage, r.is_last) for r in sorted(mine, key=lambda r: r.position))
            labels = dict(setup)
            before: dict[str, Any] = {}
            for position, stage, is_last in stages:
                row: list[Any] = [labels.get("strategy", ""), str(labels.get("k", "")), stage]
                for ability in self.ours.abilities:
                    plain = {k: v for k, v in setup if k not in ("seed", "size") and v not in ("", None)}
                    now = self.ours.at(ability, **plain, stage=None if is_last else stage)
                    then = before.get(ability)
                    if now is None or then is None:
                        row.append("–")
                    else:
                        change = now - then
                        row.append((findings.shown(change, BEST[ability], signed=True), change.value))
                    before[ability] = now
                if position:
                    rows.append(row)
        columns = ["strategy", "k", "stage", *(f"{ability}, change" for ability in self.ours.abilities)]
        return Table("changes", columns, rows, "After the stage minus before it; a loss is forgetting.")

    def retention(self) -> Table:
        """What is left at the end of the best that an ability was after an earlier stage."""
        rows = []
        for setup in dict.fromkeys(r.setup for r in self.results if r.is_last and r.position > 1):
            plain = {k: v for k, v in setup if k not in ("seed", "size") and v not in ("", None)}
            earlier = dict.fromkeys(r.stage for r in self.results if r.setup == setup and not r.is_last)
            row: list[Any] = [plain.get("strategy", ""), str(plain.get("k", ""))]
            for ability in self.ours.abilities:
                now = self.ours.at(ability, **plain)
                before = [cell for stage in earlier if (cell := self.ours.at(ability, **plain, stage=stage))]
                best = max(before, key=lambda cell: cell.value, default=None)
                floor = 1.0 if BEST[ability] == 10 else 0.0  # the lowest rating is 1
                if now is None or best is None or best.low <= floor + 0.05 * BEST[ability]:
                    row.append("–")  # there was nothing to keep
                    continue
                kept = uncertain.combined(lambda n, b: n / np.maximum(b, 1e-9), now, best)
                row.append((f"{100 * kept.value:.0f} % ({100 * kept.low:.0f} to {100 * kept.high:.0f})", kept.value))
            rows.append(row)
        columns = ["strategy", "k", *(f"{ability} kept" for ability in self.ours.abilities)]
        return Table("retention", columns, rows, "The final score as a part of the best after an earlier stage.")

    def other_metrics(self) -> Table:
        """Every metric beside the main ones after the last stage, mean over seeds: MT-Bench by category stands here."""
        last = [r for r in self.results if r.is_last and not r.primary]
        metrics = sorted({(r.task, r.metric) for r in last})
        rows = []
        for setup in dict.fromkeys(r.setup for r in last):
            labels = {key: value for key, value in setup if value not in ("", None) and key != "size"}
            row: list[Any] = [labels.pop("strategy", ""), ", ".join(f"{key} {value}" for key, value in labels.items())]
            for task, metric in metrics:
                found = [r for r in last if r.setup == setup and (r.task, r.metric) == (task, metric)]
                mean = sum(r.value for r in found) / len(found) if found else None
                row.append("–" if mean is None else (f"{mean:.2f}" if found[0].best != 1 else f"{mean:.1%}", mean))
            rows.append(row)
        columns = ["strategy", "set-up", *(f"{task} {metric}" for task, metric in metrics)]
        return Table("metrics", columns, rows, "Means over seeds; what each metric counts stands in its file of eval/.")

    def tables(self) -> list[Table]:
        """Every table that has rows."""
        every = (
            self.verdicts(), self.main_table(), self.changes(), self.retention(), laws.table(self.ours),
            self.other_metrics(), self.accounts(),
        )  # fmt: skip
        return [table for table in every if table.rows]

    def figures(self) -> list[Figure]:
        makers: list[Callable[[Cells, str], Figure | None]] = [
            figures.own_data, figures.ratio, figures.replay, figures.front,
        ]  # fmt: skip
        drawn: list[Figure] = []
        for made in makers:
            for of, source in (
                (f"{self.size}, {self.ours.source}", self.ours),
                (f"the paper, {self.paper_size}", self.paper),
            ):
                figure = made(source, of)
                if figure and (source is self.ours or any(d.name == figure.name for d in drawn)):
                    if source is self.paper:
                        figure.name = f"{figure.name}_paper"
                    drawn.append(figure)
        for shown in (figures.maps, figures.conflicts):
            figure = shown(self._probes())
            drawn += [figure] if figure else []
        loss = figures.losses(self._curves())
        return [*drawn, *([loss] if loss else [])]

    def _firsts(self) -> list[str]:
        """One experiment of each set-up: the one with the lowest seed."""
        by_setup: dict[Any, tuple[int, str]] = {}
        for name, labels in self.study["experiments"].items():
            if name in self.experiments:
                setup = tuple(sorted((k, str(v)) for k, v in labels.items() if k != "seed"))
                by_setup[setup] = min(by_setup.get(setup, (1 << 30, "")), (int(labels.get("seed", 0)), name))
        return [name for _, name in by_setup.values()]

    def _folder(self, identity: str) -> epath.Path | None:
        return next(iter((self.workdir / "stages").glob(f"*-{identity}")), None)

    def _probes(self) -> dict[str, Any]:
        """probe.json of the first experiment's stages that were probed."""
        for name in self._firsts():
            record = self.experiments[name]
            found = {}
            for stage, identity in {"base": record["base"], **record["stages"]}.items():
                folder = self._folder(identity)
                if folder is not None and (folder / "probe.json").exists():
                    found[stage] = json.loads((folder / "probe.json").read_text())
            if len(found) > 1:
                return found
        return {}

    def _curves(self) -> dict[str, Any]:
        curves: dict[str, Any] = {}
        for name in self._firsts()[:6]:
            stages = []
            for stage, identity in self.experiments[name]["stages"].items():
                folder = self._folder(identity)
                if folder is None or not (folder / "metrics.jsonl").exists():
                    break
                rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
                rows = [row for row in rows if "loss" in row]
                domains = dict.fromkeys(key for row in rows for key in row if key.startswith("loss/"))
                by_domain = {d[5:]: [row[d] for row in rows if d in row] for d in domains}
                stages.append((stage, [row["step"] for row in rows], by_domain))
            if stages:
                curves[name] = stages
        return curves

    # --- what it rests on -----------------------------------------------------------------------

    def graph(self) -> tuple[list[tuple[int, str]], str]:
        """The first seed's stages, each once under its parent, with the number of experiments that hold it."""
        children: dict[str, dict[str, str]] = {}
        holders: dict[str, int] = {}
        naive, firsts = 0, self._firsts()
        for name in self.study["experiments"]:
            record = self.experiments.get(name)
            if record is None:
                continue
            parent = record["base"]
            for stage, identity in record["stages"].items():
                if name in firsts:
                    children.setdefault(parent, {})[identity] = stage
                holders[identity] = holders.get(identity, 0) + 1
                naive += 1
                parent = identity
        bases = {self.experiments[name]["base"] for name in firsts}
        nodes: list[tuple[int, str]] = []

        def visit(identity: str, name: str, depth: int) -> None:
            of = f", in {holders[identity]} experiments" if holders.get(identity, 0) > 1 else ""
            nodes.append((depth, f"{name} ({identity}){of}"))
            for child, stage in children.get(identity, {}).items():
                visit(child, stage, depth + 1)

        for base in sorted(bases):
            visit(base, "base", 0)
        more = "; shown is the first seed" if len(firsts) < len(self.study["experiments"]) else ""
        return nodes, f"{len(holders)} stages, where each experiment alone would train {naive}{more}."

    def accounts(self) -> Table:
        """What became of every row, in each distinct stage of the first seed."""
        rows, seen = [], set()
        for name in self._firsts():
            for stage, identity in self.experiments[name]["stages"].items():
                folder = self._folder(identity)
                if identity in seen or folder is None or not (folder / "done.json").exists():
                    continue
                seen.add(identity)
                done = json.loads((folder / "done.json").read_text())
                for domain, account in done["ledger"].items():
                    own = done["rows"][domain]
                    skipped = sum(own["skipped"].values()) + own["without an answer within the length"]
                    rows.append([
                        f"{stage} ({identity})", domain, own["used"], own["stored"], own["of them truncated"], skipped,
                        own["held out"], account["epochs"], account["trained_tokens"],
                        (f"{done['held_out_loss'][domain]:.3f}", done["held_out_loss"][domain])
                        if domain in done.get("held_out_loss", {}) else "–",
                    ])  # fmt: skip
        columns = ["stage", "domain", "rows used", "of", "cut short", "skipped", "held out", "epochs", "trained tokens",
                   "held-out loss"]  # fmt: skip
        return Table(
            "accounts", columns, rows, "Every stored row is used, not taken, held out, or skipped with a reason."
        )

    def contamination(self) -> str:
        """Questions that stand in the training data, as `evaluate --contamination` found them."""
        file = self.workdir / "contamination.json"
        if not file.exists():
            return "Not measured: evaluate --contamination looks for the benchmarks' questions in the training data."
        told = []
        for task, record in json.loads(file.read_text()).items():
            where = ", ".join(f"{len(ids)} in {domain}" for domain, ids in record["questions"].items())
            told.append(f"{task}: of {record['of']} questions 13 words in a row stand {where}")
        return "; ".join(told)

    def missing(self) -> list[str]:
        """What is not there yet, and what does not belong together."""
        told = []
        wanted = dict.fromkeys(r.task for r in self.results)
        for name in self.study["experiments"]:
            if name not in self.experiments:
                told.append(f"{name}: not started")
                continue
            for stage, identity in self.experiments[name]["stages"].items():
                folder = self._folder(identity)
                if folder is None or not (folder / "done.json").exists():
                    told.append(f"{name}: its stage {stage} is not trained")
                    break
                lost = [task for task in wanted if not (folder / "eval" / task / "score.json").exists()]
                if lost:
                    told.append(f"{name}: its stage {stage} has no score on {', '.join(lost)}")
        told += self.set_aside
        for file in sorted((self.workdir / "failures").glob("*.json")) if (self.workdir / "failures").exists() else []:
            record = json.loads(file.read_text())
            last = record["error"].strip().splitlines()[-1]
            told.append(f"{', '.join(record['experiments'])}: {record['job']} failed: {last}")
        return told

    def responses(self, name: str) -> str:
        """One question of each task, answered after every stage, side by side."""
        record, parts = self.experiments[name], []
        chain = {"base": record["base"], **record["stages"]}
        for task in dict.fromkeys(r.task for r in self.results):
            answers: list[tuple[str, str]] = []
            for stage, identity in chain.items():
                folder = self._folder(identity)
                file = folder / "eval" / task / "responses.jsonl" if folder else None
                if file is None or not file.exists():
                    continue
                row = json.loads(file.read_text().splitlines()[0])
                said = row.get("response", row.get("samples", ""))
                if not answers:
                    answers.append((f"{task}: asked", "\n\n".join(row["turns"])))
                worth = ", ".join(f"{metric} {value:g}" for metric, value in row["scores"].items() if value is not None)
                answers.append(
                    (f"after {stage} ({worth})", said if isinstance(said, str) else "\n\n— ".join(map(str, said)))
                )
            parts.append(page.columns(answers) if answers else "")
        return "".join(parts)

    def sections(self) -> list[Section]:
        nodes, counted = self.graph()
        made = {table.name: page.table(table) for table in self.tables()}
        accounts = made.pop("accounts", "")
        verdicts = made.pop("verdicts")
        shown = [
            page.details(
                name, self.responses(name)
                + page.details("config and identity", page.code(json.dumps(self.experiments[name], indent=1))),
            ) for name in self._firsts()[:_EXAMPLES]
        ]  # fmt: skip
        missing = self.missing()
        out = [
            Section("Verdicts", [verdicts]),
            Section("Scores", list(made.values())),
            Section("Figures", [page.figure(figure) for figure in self.figures()]),
            Section("Stages", [page.tree(nodes)], counted),
            Section("Data", [accounts, page.text(f"Contamination. {self.contamination()}")]),
            Section("Experiments", shown, "One of each set-up, the first seed; what it answered after every stage."),
        ]
        if missing:
            lines = "".join(f"<li>{page.html.escape(line)}</li>" for line in missing)
            out.insert(1, Section("Not there yet", [f"<ul>{lines}</ul>"]))
        return out


def _shown(found: Cells, ability: str, setup: Iterable[tuple[str, Any]], interval: bool = True) -> Any:
    plain = {k: v for k, v in setup if k not in ("seed", "size", "specialised_k", "general_k") and v not in ("", None)}
    cell = found.at(ability, **plain)
    if cell is None:
        return "–"
    if interval:
        return findings.shown(cell, BEST[ability]), cell.value
    return (f"{100 * cell.value:.1f}" if BEST[ability] == 1 else f"{cell.value:.2f}"), cell.value


def write(workdir: epath.Path, study: dict[str, Any], folder: epath.Path) -> epath.Path:
    """index.html, figures/ (SVG, PDF), tables/ (CSV, LaTeX), results.csv and results.parquet → the page."""
    report = Report(workdir, study)
    for kind in ("figures", "tables"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for figure in report.figures():
        for suffix in ("svg", "pdf"):
            drawing.draw(figure, folder / "figures" / f"{figure.name}.{suffix}")
    for made in report.tables():
        (folder / "tables" / f"{made.name}.csv").write_text(page.to_csv(made))
        (folder / "tables" / f"{made.name}.tex").write_text(page.to_latex(made))
    results.write_tables(report.results, folder)
    (folder / "index.html").write_text(page.page(report.title, report.lead(), report.sections()))
    return folder / "index.html"


def has_results(found: list[Result]) -> bool:
    """Whether there is anything to report."""
    return any(result.primary for result in found)
