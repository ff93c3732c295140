"""How Sphinx makes the site: `make docs`, or `sphinx-build -W -n docs site`.

The pages are plain Markdown that reads the same in a repository browser. What only a site needs, the navigation, is
here; nothing is fetched from a network, neither to build a page nor to read one.
"""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent

# Heading -> pages below it, in the order of the sidebar. A page that stands nowhere here is an error of the build.
NAVIGATION = {
    "Start": ["start", "choosing", "data", "init"],
    "Around training": ["doctor", "dry-run", "sample-and-chat", "comparison", "diagnostics"],
    "Going further": [
        "explain",
        "judges",
        "reward",
        "features",
        "reward-backbone",
        "reward-evaluation",
        "objectives",
        "upo",
        "reviews",
        "lora",
        "machines",
        "scale",
        "large-data",
        "python",
        "faq",
    ],
    "Reference": ["recipe", "reward-recipe", "methods/index", "conformance"],
    "What was measured": ["results", "speed", "first-ten-minutes", "claims", "log"],
    "The project": ["architecture", "contributing", "decisions", "changelog"],
}
# Files of the repository's root that are pages of the site, too.
ROOT_PAGES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}

project = "unipref"
author = "The unipref authors"
project_copyright = author
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = True  # a reference that leads nowhere is an error, not text

myst_heading_anchors = 4  # links such as data.md#operators, spelled as repository browsers spell them

html_theme = "furo"
html_title = "unipref"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "tango"
pygments_dark_style = "monokai"
highlight_language = "text"
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def navigation() -> str:
    """The sidebar as MyST directives, to stand below the front page's own text."""
    return "\n".join(
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{chr(10).join(pages)}\n```\n"
        for caption, pages in NAVIGATION.items()
    )


def add_what_a_site_needs(app: Any, docname: str, source: list[str]) -> None:
    """Put the navigation below the front page and the list of methods, and the root's own pages in their place."""
    text = source[0]
    if docname in ROOT_PAGES:
        text = (DOCS.parent / ROOT_PAGES[docname]).read_text(encoding="utf-8").replace("](docs/", "](")
    for page, file in ROOT_PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(file)}", f"]({page}.md", text)
    if docname == root_doc:
        text += "\n" + navigation()
    if docname == "explain":
        text += "\n```{toctree}\n:hidden:\n:glob:\n\nstudies/*\n```\n"
    if docname == "methods/index":
        text += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"
    source[0] = text


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    from pygments.lexers.data import JsonLexer

    app.add_lexer("jsonl", JsonLexer)
    app.connect("source-read", add_what_a_site_needs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
