"""A config to start from: what files hold, and the stages that their sizes allow."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sftmix_jax.data import sources
from sftmix_jax.data.messages import BadRow
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine import model_folder
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.files import replace
from sftmix_jax.models import hf_config, table

_GENERAL = re.compile(r"chat|general|conversation|dialog|oasst|sharegpt|ultrachat|wildchat", re.IGNORECASE)
_FEWEST = 4  # rows of each domain in the replay, where there are so many
_PARTS = (16, 4, 1)  # k as 1/16, 1/4 or 1
# Up to how many parameters: SmolLM2's recipes of 135M and 360M (1e-3) and of 1.7B (3e-4), the paper's of 7B.
_LEARNING_RATES = ((5e8, "1e-3"), (3e9, "3e-4"), (math.inf, "2e-5"))


@dataclasses.dataclass(frozen=True)
class Domain:
    """What a path holds."""

    name: str
    path: str
    rows: int  # that can be trained on
    bad: Counter[str]  # reasons of those that cannot

    @property
    def validation_rows(self) -> int:
        """A twentieth, at most 64."""
        return min(64, self.rows // 20)

    def described(self) -> str:
        """For the user."""
        text = f"{self.name}: {self.path}, {self.rows:,} rows"
        if self.bad:
            reason, count = self.bad.most_common(1)[0]
            text += f"; {self.bad.total():,} cannot be trained on and are skipped, {count:,} of them: {reason}"
        return text


@dataclasses.dataclass(frozen=True)
class Started:
    """A config that was written."""

    strategy: str
    found: list[str]  # a line per domain
    commands: list[str]


def write(paths: Sequence[str], model: str, general: str, out: str) -> Started:
    """Writes a config file for these paths, after reading all their rows.

    Raises UserError for a path without a row that can be trained on, for an unknown `general`, and if `out` exists.
    """
    target = Path(out).expanduser()
    if target.suffix != ".py" or ":" in out:  # behind a colon stand a config's arguments
        raise UserError(f"--out {out}: a config is a Python file; name it as mine.py")
    if target.exists():
        raise UserError(f"--out {out}: is there already and is not replaced; name another, or delete it")
    init, rate = _base(model)
    domains = [_read(name, path) for name, path in zip(_names(paths), paths, strict=True)]
    names = [domain.name for domain in domains]
    if general and general not in names:
        raise UserError(f"--general {general}: no such domain; {did_you_mean(general, names)}")
    if len(domains) > 1:
        general = general or next((name for name in names if _GENERAL.search(name)), "")
    strategy, stages = _stages(domains, general)
    text = _text(domains, init, rate, strategy, stages, target.stem)
    replace(target, text.encode())
    try:
        experiment.read([f"--config={target}"])  # what is written can be read
    except UserError:
        target.unlink()
        raise
    config, workdir = shlex.quote(out), shlex.quote(f"runs/{target.stem}")
    commands = [
        f"python -m sftmix_jax.{line}"
        for line in (
            f"audit --config {config}",
            f"train --config {config} --workdir {workdir}",
            f"sample --workdir {workdir}",
            f"export --workdir {workdir} --out exported",
            f"report --workdir {workdir}",
        )
    ]
    return Started(strategy, [domain.described() for domain in domains], commands)


def _names(paths: Sequence[str]) -> list[str]:
    """A name for each path: its file's, or its folder's, with a number where that is taken."""
    names: list[str] = []
    for path in paths:
        last = path.partition(":")[2] if path.startswith(("hf:", "tfds:", "tiny:")) else path
        parts = [part for part in re.split(r"[/\\]", last.rstrip("/")) if part and "*" not in part]
        stem = re.sub(
            r"(\.(jsonl|ndjson|json|csv|tsv|parquet|array_record|gz|zst))+$",
            "",
            parts[-1] if parts else "",
            flags=re.IGNORECASE,
        )
        name = re.sub(r"[^A-Za-z0-9_]+", "_", stem.partition(",")[0]).strip("_").lower() or "data"
        taken = sum(re.fullmatch(rf"{name}(_\d+)?", other) is not None for other in names)
        names.append(f"{name}_{taken + 1}" if taken else name)
    return names


def _read(name: str, path: str) -> Domain:
    rows, bad = 0, Counter[str]()
    for _, conversation in sources.read_conversations(Source(path)):
        if isinstance(conversation, BadRow):
            bad[str(conversation)] += 1
        else:
            rows += 1
    if not rows:
        reason = bad.most_common(1)[0][0]
        raise UserError(f"{path}: no row of {bad.total():,} can be trained on, most of them because of {reason}")
    return Domain(name, path, rows, bad)


def _stages(domains: Sequence[Domain], general: str) -> tuple[str, str]:
    """The strategy, and the expression of its stages."""
    if len(domains) == 1:
        name = domains[0].name
        return "one domain in one stage", f'strategies.single(pattern, "{name}", Share(fraction=1.0))'
    if not general:
        shares = "{name: Share(fraction=1.0) for name in domains}"
        return "all domains in one stage", f"strategies.multitask(pattern, {shares})"
    others = [domain for domain in domains if domain.name != general]
    fewest = min(domain.rows - domain.validation_rows for domain in others)
    part = next((part for part in _PARTS if fewest // part >= _FEWEST), 1)
    k = f"1 / {part}" if part > 1 else "1"
    return f"DMT with k = {k}, then {general}", (
        "strategies.dmt(\n"
        "        pattern,\n"
        f"        specialised={{{', '.join(f'{d.name!r}: Share(fraction=1.0)' for d in others)}}},\n"
        f"        general={{{general!r}: Share(fraction=1.0)}},\n"
        f"        k={k},\n"
        "    )"
    ).replace("'", '"')


def _base(model: str) -> tuple[str, str]:
    """`model.init` of a model folder or hub id, and a learning rate. Raises UserError where there is no such model."""
    name = model.removeprefix("hf:")
    if name == "tiny":
        return name, _LEARNING_RATES[0][1]
    if not name:
        raise UserError("--model names no model: give tiny, a model folder or a hub id")
    size = table.num_params(hf_config.read(model_folder.find(name, weights=False)))
    return f"hf:{name}", next(rate for bound, rate in _LEARNING_RATES if size < bound)


def _text(domains: Sequence[Domain], init: str, rate: str, strategy: str, stages: str, name: str) -> str:
    length = ", seq_len=256" if init == "tiny" else ""
    own_name = re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("-") or "mine"
    held = [
        f'        "{domain.name}": Source({_quoted(domain.path)}, validation_rows={domain.validation_rows}'
        + (', bad_rows="skip"' if domain.bad else "")
        + f"),  # {domain.rows:,} rows"
        for domain in domains
    ]
    return "\n".join(
        [
            f'"""{strategy[0].upper()}{strategy[1:]}."""',
            "",
            "from sftmix_jax.data.loader import BatchConfig",
            "from sftmix_jax.data.mixture import Share",
            "from sftmix_jax.data.sources import Source",
            "from sftmix_jax.experiment import strategies",
            "from sftmix_jax.experiment.config import Experiment, ModelConfig, Stage",
            "from sftmix_jax.training.optimizer import OptimizerConfig",
            "",
            "",
            "def get_config() -> Experiment:",
            "    domains = {",
            *held,
            "    }",
            f"    batch = BatchConfig(batch_size=16{length})",
            f"    pattern = Stage(epochs=3, batch=batch, optimizer=OptimizerConfig(learning_rate={rate}))",
            f"    stages = {stages}",
            f'    return Experiment("{own_name}", domains, stages, ModelConfig(init={_quoted(init)}))',
            "",
        ]
    )


def _quoted(text: str) -> str:
    """A Python string between double quotes."""
    return json.dumps(text, ensure_ascii=False)
