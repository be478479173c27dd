"""The notebooks of the site run as the scripts that they are."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


def test_every_notebook_is_a_page_of_the_site():
    index = (ROOT / "docs" / "index.md").read_text()
    named = re.findall(r"^notebooks/(\w+)$", index, re.MULTILINE)
    assert sorted(named) == [file.stem for file in NOTEBOOKS] and len(named) >= 3


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_begins_with_a_title_and_its_links_lead_somewhere(file):
    text = file.read_text()
    ast.parse(text)
    assert text.startswith("# %% [markdown]\n# # ")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (file.parent / link).is_file(), link


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file, tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    env |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    ended = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
