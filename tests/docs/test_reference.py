"""The reference has an entry for each public name."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import trio_stream
import trio_stream.stores
import trio_stream.testing
import trio_stream.view

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ENTRY = re.compile(r"^\.\. (?:auto)?(?:class|data|exception|function):: ([\w.]+)", re.MULTILINE)


@pytest.mark.parametrize("module", [trio_stream, trio_stream.stores, trio_stream.testing, trio_stream.view])
def test_every_public_name_has_its_entry(module: ModuleType) -> None:
    public = {
        f"{module.__name__}.{name}"
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    entries = {entry for page in REFERENCE.glob("*.md") for entry in ENTRY.findall(page.read_text())}
    assert public - entries == set()


@pytest.mark.parametrize(
    ("heading", "module"),
    [("The core", trio_stream), ("The stores", trio_stream.stores)],
    ids=["core", "stores"],
)
def test_the_page_about_the_code_has_every_module(heading: str, module: ModuleType) -> None:
    page = (REFERENCE.parent / "explanation" / "the-code.md").read_text()
    (section,) = re.findall(rf"^## {heading}, module by module$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`_.*?) \|", section, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert module.__file__ is not None
    assert listed == {path.stem for path in Path(module.__file__).parent.glob("_[a-z]*.py")}
