"""Every promise has its tests, and the tests say so."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROMISE = re.compile(r"\bD(\d+)\b")
PAGE = TESTS.parent / "docs" / "reference" / "promises.md"
MADE = re.findall(r"^## (D\d+): ", PAGE.read_text(), re.MULTILINE)


@cache
def cited() -> dict[str, list[str]]:
    """{promise: the tests whose docstring names it}."""
    found: dict[str, list[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in PROMISE.findall(ast.get_docstring(node) or ""):
                    found.setdefault(f"D{number}", []).append(f"{path.relative_to(TESTS)}::{node.name}")
    return found


def test_the_page_of_promises_has_those_of_the_beginning() -> None:
    assert {f"D{number}" for number in range(1, 19)} <= set(MADE)


@pytest.mark.parametrize("promise", MADE)
def test_every_promise_is_cited_by_a_test(promise: str) -> None:
    assert cited().get(promise)


def test_no_test_cites_a_promise_that_was_never_made() -> None:
    assert set(cited()) <= set(MADE)
