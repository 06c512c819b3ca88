"""What happens inside of pytest: which tests run which lines, and which test notices a change first.

Nothing is collected anew for a change of a function: it is put in the place of that function in a fork of a process
that has collected all tests and run none.
Any other change takes effect where the package is imported, in a fork of a process that has not imported it.
"""

import gc
import importlib.abc
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final, TypeAlias

import coverage
import pytest
from hypothesis import settings
from mutants.proposed.changes import Change, without_lines
from mutants.proposed.children import Say

TESTS: Final = Path(__file__).parents[2]
PACKAGE: Final = Path(importlib.util.find_spec("trio_stream").origin or "").parent  # type: ignore[union-attr]
OPTIONS: Final = (
    "-q",
    "--tb=native",
    "--capture=sys",
    "--hypothesis-seed=0",
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-o", "faulthandler_timeout=0"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # pytest's plugins are imported before it
    f"--rootdir={TESTS.parent}",
)
PATIENCE: Final = (5.0, 10)  # seconds that a test may take, and how many times as long as before in addition

Seconds: TypeAlias = Mapping[str, float]  # {test: how long it took}


def run_pytest(plugin: "Collected", files: Sequence[str]) -> None:
    code = pytest.main([*OPTIONS, *(str(TESTS / file) for file in files)], plugins=[plugin])
    if code:
        raise RuntimeError(f"pytest ends with {code!r}")


class Collected:
    """A plugin of pytest that does something with the tests that were collected, in place of running all of them."""

    def __init__(self, then: Callable[["Collected"], None]) -> None:
        self._then = then
        # {name without "tests/": test}
        self.items: dict[str, pytest.Item] = {}
        # Of the test that runs: what has failed; and its seconds.
        self._failures: list[str] = []
        self.seconds = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        settings.register_profile(
            "mutants", settings.get_profile("trio_stream"), derandomize=True, database=None
        )
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """uvloop runs tasks as asyncio does; and what is swept of stores is not about the core."""
        items[:] = [
            item
            for item in items
            if "uvloop" not in item.nodeid and not re.search(r"sweep/.*([Ss]tore|trio-stream)", item.nodeid)
        ]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid.removeprefix("tests/"): item for item in session.items}
        self._then(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if report.failed:
            self._failures.append(report.nodeid)

    def passes(self, name: str, following: str | None) -> bool:
        self._failures.clear()
        self.seconds = 0.0
        item = self.items[name]
        next_item = None if following is None else self.items[following]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
        return not self._failures

    def first_failure(self, tests: Seconds, say: Say) -> str | None:
        """Which of these tests fails first, the quickest first."""
        names = [name for name in sorted(tests, key=tests.__getitem__) if name in self.items]
        for name, following in zip_longest(names, names[1:]):
            say(name, PATIENCE[0] + PATIENCE[1] * tests[name])
            if not self.passes(name, following):
                return name
        return None


class Functions:
    """The functions of the package that were made while it was imported."""

    def __init__(self) -> None:
        self._functions: dict[CodeType, list[FunctionType]] = {}
        inside = str(PACKAGE)
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename.startswith(inside):
                self._functions.setdefault(thing.__code__, []).append(thing)

    def replacement(self, change: Change) -> Callable[[], None] | None:
        """Puts the change in the place of what is there; None if that is not possible."""
        file = PACKAGE / change.file
        old, new = (
            compile(source, str(file), "exec", dont_inherit=True)
            for source in (file.read_text(), change.source)
        )
        found = [(self._functions.get(before, []), after) for before, after in _changed(old, new)]
        for functions, after in found:
            if not functions or any(each.__code__.co_freevars != after.co_freevars for each in functions):
                return None
        if not found:  # it is outside of functions
            return None

        def replace() -> None:
            for functions, after in found:
                for function in functions:
                    function.__code__ = after

        return replace


def _changed(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Each outermost function whose code is another, with that."""
    before, after = ([each for each in code.co_consts if isinstance(each, CodeType)] for code in (old, new))
    for left, right in zip(before, after, strict=False):
        if not left.co_flags & inspect.CO_OPTIMIZED:  # of a class
            yield from _changed(left, right)
        elif without_lines(left) != without_lines(right):
            yield left, right


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has the package imported with the change."""

    def __init__(self, change: Change) -> None:
        self._change = change
        parts = ("trio_stream", *Path(change.file).with_suffix("").parts)
        self._name = ".".join(parts).removesuffix(".__init__")

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, PACKAGE / self._change.file, loader=self)

    def exec_module(self, module: Any) -> None:
        code = compile(self._change.source, str(PACKAGE / self._change.file), "exec", dont_inherit=True)
        exec(code, module.__dict__)


def killer_when_imported(change: Change | None, tests: Seconds, say: Say) -> str | None:
    """Imports the package with the change, if there is one, and collects the tests anew."""
    assert "trio_stream" not in sys.modules
    if change is not None:
        sys.meta_path.insert(0, Changed(change))
    say("the import", 30)
    try:
        __import__("trio_stream.view")
    except Exception:  # noqa: BLE001 - any will do
        return "the import"
    found: list[str | None] = ["the collection"]

    def find(collected: Collected) -> None:
        found[0] = collected.first_failure(tests, say)

    say("the collection", 60)
    files = sorted({_file(name) for name in tests})
    with suppress(RuntimeError):
        run_pytest(Collected(find), files)
    return found[0]


def trace(collected: Collected) -> tuple[dict[str, Any], list[str]]:
    """For each file of tests: how long its tests take, and which of them run which lines. And what fails."""
    os.environ["COVERAGE_CORE"] = "ctrace"  # the only one that knows which test runs
    measured = coverage.Coverage(
        data_file=None, include=[f"{PACKAGE}/_*", f"{PACKAGE}/view/*"], config_file=False
    )
    names = list(collected.items)
    parts: dict[str, Any] = {_file(name): {"seconds": {}, "lines": {}} for name in names}
    failures: list[str] = []
    measured.start()
    for name, following in zip_longest(names, names[1:]):
        measured.switch_context(name)
        if collected.passes(name, following):
            parts[_file(name)]["seconds"][name] = round(collected.seconds, 4)
        else:
            failures.append(name)
    measured.stop()
    data = measured.get_data()
    for path in data.measured_files():
        for line, contexts in data.contexts_by_lineno(path).items():
            for name in filter(None, contexts):
                lines = parts[_file(name)]["lines"].setdefault(str(Path(path).relative_to(PACKAGE)), {})
                lines.setdefault(line, []).append(name)
    return parts, failures


def _file(test: str) -> str:
    return test.partition("::")[0]
