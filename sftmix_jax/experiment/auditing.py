"""What stands in an experiment's data, before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich import box
from rich.table import Table

from sftmix_jax.data import overlap, sources
from sftmix_jax.data.cache import Examples
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation import contamination
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.stages import Resolved
from sftmix_jax.machine import terminal

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 24


def audit(
    config: Experiment, tasks: Sequence[str], data: dict[str, str], examples: int, console: terminal.Console
) -> None:
    """Prints domains, stages, overlaps with the questions of tasks, `examples` rows per domain. Raises UserError."""
    resolved = Resolved(config)
    console.print(resolved.description)
    _domains(resolved, console)
    _stages(resolved, console)
    _overlaps(resolved, tasks, data, console)
    for name, stored in resolved.examples.items():
        for index in range(min(examples, len(stored))):
            _example(resolved, name, stored, index, console)


def _table(title: str, *columns: str) -> Table:
    """A table that stays whole on 80 columns; the first column is a name, the others are numbers."""
    table = Table(title=title, box=box.SIMPLE, title_justify="left", padding=(0, 1))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _domains(resolved: Resolved, console: terminal.Console) -> None:
    """Rows, tokens and what is trained on, before any share is taken."""
    table = _table("domains, whole", "domain", "rows", "skipped", "tokens", "trained on", "of all")
    lines = []
    for name, examples in resolved.examples.items():
        lengths, trained = examples.lengths(1 << 40)
        table.add_row(
            name,
            f"{examples.rows:,}",
            f"{sum(examples.skipped.values()):,}",
            f"{lengths.sum():,}",
            f"{trained.sum():,}",
            f"{trained.sum() / lengths.sum():.1%}",
        )
        counts, _ = np.histogram(lengths, _BINS, (0, lengths.max()))
        bars = "".join(_BARS[int(np.ceil(8 * count / counts.max()))] for count in counts)
        lines.append(f"lengths of {name}: 0 {bars} {lengths.max():,} tokens, median {int(np.median(lengths)):,}")
        lines += [f"  {count:,} rows skipped: {reason}" for reason, count in examples.skipped.items()]
        lines += [f"    {where}" for where in examples.skipped_where[:3]]
    console.print(table)
    console.print("\n".join(lines) + "\n")


def _stages(resolved: Resolved, console: terminal.Console) -> None:
    """What each stage takes, and how many steps that makes."""
    for stage in resolved.chain():
        plan, pools = resolved.plan(stage.stage)
        steps = stage.stage.steps or plan.num_steps
        ledger, rows = plan.ledger(steps), plan.rows_account(pools, resolved.experiment.seed)
        examples = sum(account["examples"] for account in ledger.values())
        table = _table(
            f"stage {stage.name} ({stage.id}): {steps:,} steps, {examples / steps:.1f} examples a step, "
            f"packing {plan.fill:.1%} full",
            "domain",
            "rows",
            "of",
            "cut short",
            "cut whole",
            "epochs",
            "trained on",
        )
        for name in plan.names:
            table.add_row(
                name,
                f"{rows[name]['used']:,}",
                f"{rows[name]['stored']:,}",
                f"{rows[name]['of them truncated']:,}",
                f"{rows[name]['without an answer within the length']:,}",
                f"{ledger[name]['epochs']:g}",
                f"{ledger[name]['trained_tokens']:,}",
            )
        console.print(table)


def _overlaps(resolved: Resolved, tasks: Sequence[str], data: dict[str, str], console: terminal.Console) -> None:
    def conversations(source: Source) -> Iterator[tuple[str, Sequence[Message]]]:
        for where, conversation in sources.read_conversations(source):
            if not isinstance(conversation, BadRow):
                yield where, conversation.messages

    config = EvaluationConfig(data=data)
    benchmarks = {}
    for name in tasks:
        task, _ = find_task(name)
        questions = load_questions(task, config)
        benchmarks[task.name] = [contamination.asked(question) for question in questions]
    found = overlap.find(
        ((name, conversations(resolved.experiment.domains[name])) for name in resolved.examples), benchmarks
    )
    console.print("duplicates within a domain: " + ", ".join(f"{name} {n:,}" for name, n in found.duplicates.items()))
    for (first, second), count in found.shared_prompts.items():
        console.print(f"prompts of {second} that stand in {first} too: {count:,}")
    for name in benchmarks:
        counts = ", ".join(f"{domain} {found.contaminated[domain, name]:,}" for domain in resolved.examples)
        console.print(f"rows with 13 words in a row of a question of {name}: {counts}")
    for where in found.contaminated_where:
        console.print(f"  {where}", style="dim")


def _example(resolved: Resolved, name: str, examples: Examples, index: int, console: terminal.Console) -> None:
    """An example as the model sees it; what is trained on is underlined, or stands in brackets where nothing can be."""
    tokens, weights = examples.example(index, 400)
    mask = weights > 0
    plain = not console.is_terminal
    text = terminal.text(f"{name}, row {index} (trained on: {'in ⟦ ⟧' if plain else 'underlined'})\n", "bold")
    starts = np.flatnonzero(np.diff(mask, prepend=~mask[:1]))
    for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
        part = resolved.tokenizer.decode_whole(tokens[start:stop].tolist())
        if plain and mask[start]:
            part = f"⟦{part}⟧"
        text.append_text(terminal.text(part, "not bold green underline" if mask[start] else "not bold dim"))
    console.print(text)
