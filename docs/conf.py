"""The documentation site: Sphinx over the pages of this folder, and the API reference from docstrings.

Sphinx and MyST rather than MkDocs: MkDocs 1 is no longer maintained and its Material theme ends with it.
Build: `nox -s docs`, which is strict: a broken link or an unknown name fails it.
"""

from __future__ import annotations

import archbench

project = "archbench"
author = "the archbench authors"
release = archbench.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"archbench {release}"
myst_heading_anchors = 3  # `page.md#heading` works on the site as it does in the repository
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports: list[str] = []
templates_path: list[str] = []
html_static_path: list[str] = []
nitpick_ignore_regex = [
    ("py:.*", r"(os|pathlib|pd|pandas|collections|msgspec|torch)\..*"),
    ("py:class", "OneOrMore|PathOrText|Inputs|Network|_T|Record|Environment|Plan|Path"),
    ("py:class", r"(archbench\..*\.)?(Picked|Comparison|Duel|Exported|Fits|Profile|Session|Shown|Judged|Probe)"),
]
"""Names of other projects, whose pages are elsewhere (building asks nothing of the network); types without a page."""
