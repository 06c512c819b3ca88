"""How Sphinx builds these pages; `nox -s docs` does it."""

import os
import re
from importlib.metadata import version as installed_version

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "trio_stream"
author = "the trio_stream contributors"
project_copyright = author
release = version = installed_version("trio-stream")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "trio_stream"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"

default_role = "py:obj"  # `Subscription.receive` in a docstring is a link

nitpick_ignore_regex = [
    ("py:(class|obj)", r"(trio_stream\.(\w+\.)*)?[PQKV](_co|_contra)?"),  # type variables have no page
    ("py:class", r"trio_stream\._interest\.All"),  # the type of `ALL`, which has its entry
]

# A build must not need the network; with addresses in the environment, names of other projects become links:
# TRIO_STREAM_INTERSPHINX="python=https://docs.python.org/3 trio=https://trio.readthedocs.io/en/stable"
if inventories := os.environ.get("TRIO_STREAM_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        name: (address, None) for name, _, address in (entry.partition("=") for entry in inventories.split())
    }

OTHERS = re.compile(
    r"(anyio|asyncio|collections|contextlib|datetime|enum|os|pathlib|psycopg|sqlite3|trio|typing|typing_extensions|uuid)\."
)
OURS = re.compile(
    r"[A-Z]\w*[a-z]\w*(\.\w+)?"
)  # `Class` or `Class.member`, where a slip of the pen should be found


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Names that other projects document, and backticks of a docstring that hold no name, are no links."""
    target = node["reftarget"]
    if OTHERS.match(target):
        return content
    if node["reftype"] != "obj":
        return None
    if not OURS.fullmatch(target):
        return content
    # A docstring of another module names what is in the top one, one of an engine what is in `stores`.
    python = env.domains.python_domain
    for package in ("trio_stream", "trio_stream.stores"):
        name = f"{package}.{target}"
        if found := python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content):
            return found
    return None


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
