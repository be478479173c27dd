"""The documentation site: Sphinx reads the Markdown pages of this folder; `make docs` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the package, and reference.py beside this file

from sftmix_jax import __version__  # noqa: E402

project = "sftmix-jax"
release = __version__
copyright = "the sftmix-jax authors"
extensions = ["myst_parser", "reference"]
exclude_patterns = ["_build"]
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # rows and output with … in place of what is long
nitpicky = True
smartquotes = False
highlight_language = "text"

html_theme = "furo"
html_title = "sftmix-jax"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
