"""The commands, programs and files that the documentation shows work as they stand."""

import ast
import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from sftmix_jax.experiment import config as experiment
from sftmix_jax.studies import study

PAGES = sorted(file.relative_to(ROOT).as_posix() for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
VERBS = {file.stem for file in (ROOT / "sftmix_jax").glob("*.py")}
# A comment before a block, the fence with a language or `{code-block} LANGUAGE`, an optional caption, the text.
BLOCK = re.compile(
    r"(?P<comment><!-- not run: [^\n]+ -->\n)?"
    r"^(?P<fence>```|:::)(?:\{code-block\} )?(?P<language>bash|python|json|jinja)\n"
    r"(?::caption: (?P<file>\S+)\n)?(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page: a file if it is named, else something to run."""

    language: str
    text: str
    file: str
    runs: bool

    def commands(self) -> list[list[str]]:
        """The words of each `python -m sftmix_jax.VERB …` in it, from VERB on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [re.search(r"python -m sftmix_jax\.(.+)", line) for line in lines]
        return [shlex.split(match[1].partition(" > ")[0].rstrip('"'), comments=True) for match in found if match]


def blocks(page: str) -> list[Block]:
    out = []
    for found in BLOCK.finditer((ROOT / page).read_text()):
        named = re.match(r"# (\S+\.py)\n", found["text"])  # as in the README, which has no captions
        file = found["file"] or (named[1] if named else "")
        out.append(Block(found["language"], found["text"], file, not found["comment"]))
    return out


def options_of(verb: str) -> set[str]:
    module = importlib.import_module(f"sftmix_jax.{verb}")
    return {"help", *(field.name for field in dataclasses.fields(module.Options))}


def write_files(page: str, folder: Path) -> None:
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_every_block_of_a_page_can_be_read(page, tmp_path, monkeypatch):
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "json" and block.file:
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
        elif block.language == "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)
        for verb, *arguments in block.commands() if block.language == "bash" else ():
            assert verb in VERBS
            for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
                assert option.startswith("--config") or option[2:] in options_of(verb), f"{verb} {option}"
            if "--config" in arguments and arguments[arguments.index("--config") + 1] != "FILE.py":
                spec = arguments[arguments.index("--config") + 1]
                if verb == "study":
                    study.read(spec)
                else:
                    experiment.read(["--config", spec, *(word for word in arguments if word.startswith("--config."))])


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.runs and not b.file for b in blocks(page))])
def test_every_block_of_a_page_runs(page, tmp_path):
    """In their order, in one folder, as a reader would."""
    write_files(page, tmp_path)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    env |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for block in blocks(page):
        if block.file or not block.runs or block.language not in ("bash", "python"):
            continue
        command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        ended = subprocess.run(
            [*command, block.text], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
        )
        assert ended.returncode == 0, f"{block.text}\n{ended.stdout}\n{ended.stderr}"


def texts() -> list[str]:
    """The package's texts, with … for what is filled in."""
    found = []
    for file in (ROOT / "sftmix_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_under_troubleshooting_is_one_of_the_package():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    known = [re.sub("…+", "…", text) for text in texts()]
    assert len(messages) >= 15
    assert [message for message in messages if not any(message in text for text in known)] == []


def test_every_benchmark_template_and_launcher_is_named():
    named = {
        "evaluation.md": "eval/*.py",
        "chat_templates.md": "sftmix_jax/data/templates/*.jinja",
        "clusters.md": "launch/*.sh",
    }
    for page, pattern in named.items():
        text = (ROOT / "docs" / page).read_text()
        missing = [file.stem for file in ROOT.glob(pattern) if file.stem != "common" and file.stem not in text]
        assert not missing, f"{page}: {missing}"
