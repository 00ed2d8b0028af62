"""How Sphinx makes the documentation: `make docs`."""

import shutil
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

project = "lightning-priors"
author = "the lightning-priors contributors"
copyright = "2026, the lightning-priors contributors"
version = release = installed("lightning-priors")

extensions = [
    "myst_nb",  # pages in Markdown, and the executed notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas are drawn without a network
]
exclude_patterns = ["_build", "serving", "jupyter_execute"]  # the last: pictures that myst_nb takes out of notebooks
nb_execution_mode = "off"  # the suite executes them; a page shows what is committed
nb_render_markdown_format = "myst"  # tables in the output of a cell
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
default_role = "py:obj"  # `Name` in a docstring is a link to what has that name
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False

html_theme = "furo"
html_title = "lightning-priors"
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def copy_notebooks(app: Sphinx) -> None:
    """Copies the executed notebooks to where Sphinx reads; it sees only what lies below its own folder."""
    copies = Path(app.srcdir) / "notebooks"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    for notebook in sorted((copies.parents[1] / "notebooks").glob("*.ipynb")):
        shutil.copy2(notebook, copies)  # with its time, so that an unchanged one is not read again


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", copy_notebooks)
