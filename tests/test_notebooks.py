"""The notebooks are pages of the site, whose build runs them and ends with the first that fails."""

import ast
import re

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
