"""Sphinx builds the site from the pages of this folder and the docstrings: `make site`."""

import re
from typing import Any

import saikei

project = "Saikei"
author = "The Saikei developers"
release = version = saikei.__version__
copyright = author  # noqa: A001 - Sphinx's name for it

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "index"
html_theme = "furo"
html_title = "Saikei"

# Single backticks in docstrings are code, as they are in Markdown.
default_role = "code"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}

# The overviews are the READMEs, whose links are those of the repository.
ON_THE_SITE = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def setup(app: Any) -> None:
    """Let the links of the READMEs lead to pages of the site; scripts have none."""
    app.connect("include-read", _linked)


def _linked(_app: Any, _path: str, _page: str, lines: list[str]) -> None:
    lines[0] = re.sub(r"\[([^]]+)\]\(([^):#]+)\)", _link, lines[0])


def _link(found: re.Match[str]) -> str:
    text, target = found.groups()
    target = ON_THE_SITE.get(target, target)
    return text if target.startswith(("benchmarks/", "src/")) else f"[{text}]({target})"
