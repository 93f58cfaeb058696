"""Configuration of the documentation site: sphinx-build -W -c .ci/docs . OUT, in the checkout.

The source folder is the checkout itself, so every page is a file at its own place, and links
between documents are the ones that work in the repository, too.
"""

import sys
from pathlib import Path

from sphinx.addnodes import pending_xref

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import Docstring, process

ROOT = Path(__file__).parents[2]

project = "diffpolicy"
author = copyright = "diffpolicy contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
root_doc = "eval/docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "datasets/README.md",
    "diffpolicy/*/README.md",
    "envs/README.md",
    "eval/README.md",
    "eval/POLICIES.md",
    "eval/docs/*.md",
    "eval/docs/api/*.md",
]
exclude_patterns = ["**/.*", "runs", "quickstart", "suite", "build", "dist"]
html_theme = "furo"
html_title = "diffpolicy"
myst_heading_anchors = 4


def unlink_folders(app, doctree) -> None:
    """Leave only the text of a link to a folder, which has no page (the event doctree-read)."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(pending_xref)):
        if node["reftype"] == "myst" and (here / node["reftarget"]).is_dir():
            node.replace_self(node.children)


def redirect(app, exception) -> None:
    """Send a reader of index.html to the first page (the event build-finished)."""
    if exception is None and app.builder.name == "html":
        page = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app) -> None:
    """Connect the functions above."""
    app.add_directive("docstring", Docstring)
    app.connect("autodoc-process-docstring", process)
    app.connect("doctree-read", unlink_folders)
    app.connect("build-finished", redirect)
