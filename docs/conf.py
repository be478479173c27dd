"""The documentation site: Sphinx reads the Markdown pages of this folder; `make docs` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # the package, and reference.py beside this file

from sftmix_jax import __version__  # noqa: E402

project = "sftmix-jax"
release = __version__
copyright = "the sftmix-jax authors"
extensions = ["myst_nb", "reference"]
exclude_patterns = ["_build", "*.py"]  # notebooks/ has scripts that are pages; those beside this file are none
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # rows and output with … in place of what is long
nitpicky = True
smartquotes = False
highlight_language = "text"

# Each notebook is a script; it is run in a folder of its own, and one that fails ends the build.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress

html_theme = "furo"
html_title = "sftmix-jax"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
