"""Two trainers on one workdir, the second started at five offsets: one of them trains, and the other one says so.

python -m tests.campaigns.two_trainers [--steps 300] [--offsets 0,0.2,0.4,0.6,0.8]

An offset is a part of the time that one trainer trains alone; as both take equally long to start, the second comes when
the first is about so far. Whatever the offset, both stages must end with the params_sha256 of a lone trainer, and every
step must be in metrics.jsonl once. A trainer either ends with exit code 0, or with exit code 2 and one line that names
the other one's process. The second trainer at every second offset belongs to another experiment, which shares the first
stage alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.campaigns import _scratch as scratch

ROOT = Path(__file__).parents[2]
CONFIG = """
from tests.campaigns import _scratch as scratch

def get_config(name="campaign"):
    return scratch.experiment("{}", name=name)
"""
STAGES = ("first", "second")


def start(config: Path, name: str, workdir: Path, steps: int) -> subprocess.Popen[str]:
    arguments = [f"--config={config}:{name}", f"--workdir={workdir}"]
    arguments += [f"--config.stages.{stage}.steps={steps}" for stage in STAGES]
    arguments += ["--config.checkpoints.every=10"]
    if name != "campaign":
        arguments += ["--config.stages.second.optimizer.learning_rate=1e-3"]
    return subprocess.Popen(
        [sys.executable, "-m", "sftmix_jax.train", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def done(workdir: Path) -> dict[str, dict[str, Any]]:
    return {file.parent.name: json.loads(file.read_text()) for file in workdir.glob("stages/*/done.json")}


def hashes(workdir: Path) -> dict[str, str]:
    return {name: record["params_sha256"] for name, record in done(workdir).items()}


def wrong_metrics(workdir: Path, steps: int) -> str:
    for file in workdir.glob("stages/*/metrics.jsonl"):
        found = [row["step"] for line in file.read_text().splitlines() if "loss" in (row := json.loads(line))]
        if found != list(range(1, steps + 1)):
            return f"{file.parent.name}: metrics.jsonl does not hold each of {steps} steps once"
    return ""


def ended(process: subprocess.Popen[str], said: str, others: int) -> str:
    """What is wrong with how a trainer ended, or nothing."""
    if process.returncode == 0:
        return ""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if process.returncode == 2 and len(lines) == 1 and re.search(rf"process {others} on \S+ \(since", lines[0]):
        return ""
    return f"exit code {process.returncode}: {said[-500:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--offsets", default="0,0.2,0.4,0.6,0.8")
    options = parser.parse_args()
    begin, wrong, refused, length = time.monotonic(), list[str](), 0, 0.0
    offsets = [float(offset) for offset in options.offsets.split(",")]
    with tempfile.TemporaryDirectory() as root_:
        root = Path(root_)
        os.environ["SFTMIX_CACHE"] = str(root / "cache")
        scratch.save_model(root / "model")
        config = root / "config.py"
        config.write_text(CONFIG.format(root / "model"))
        for name in ("campaign", "other"):
            process = start(config, name, root / "alone", options.steps)
            said = process.communicate()[1]
            assert process.returncode == 0, said
            length = length or sum(record["seconds"] for record in done(root / "alone").values())
        wanted = hashes(root / "alone")
        for number, offset in enumerate(offsets):
            workdir = root / str(number)
            first = start(config, "campaign", workdir, options.steps)
            time.sleep(offset * length)
            second = start(config, "other" if number % 2 else "campaign", workdir, options.steps)
            said = [process.communicate()[1] for process in (first, second)]
            pairs = ((first, said[0], second.pid), (second, said[1], first.pid))
            refused += sum(process.returncode == 2 for process, *_ in pairs)
            problems = [problem for pair in pairs if (problem := ended(*pair))]
            for again in ("campaign", "other") if number % 2 else ("campaign",):  # as who was refused is told to
                process = start(config, again, workdir, options.steps)
                if process.communicate() and process.returncode:
                    problems.append(f"run again, {again} ended with exit code {process.returncode}")
            found = hashes(workdir)
            if len(found) != (3 if number % 2 else 2) or any(wanted[name] != found[name] for name in found):
                problems.append(f"other parameters than a lone trainer's: {found}")
            problems += [problem] if (problem := wrong_metrics(workdir, options.steps)) else []
            for problem in problems:
                print(f"offset {offset}: {problem}", file=sys.stderr)
            wrong += problems
    print(
        f"two trainers at {len(offsets)} offsets: {refused} ended with a line that names the other, "
        f"{len(wrong)} problems; {time.monotonic() - begin:.0f} s; {'FAILED' if wrong else 'passed'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
