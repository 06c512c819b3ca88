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


def test_the_page_about_the_code_has_every_module_of_the_core() -> None:
    page = (REFERENCE.parent / "explanation" / "the-code.md").read_text()
    listed = set(re.findall(r"^\| `(_\w+)` \|", page, re.MULTILINE))
    package = Path(trio_stream.__file__).parent
    assert listed == {path.stem for path in package.glob("_[a-z]*.py")}
