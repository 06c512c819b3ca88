"""What a user gets who installs the package: the names, the types, the light import, the script."""

import inspect
import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest

import trio_stream

ROOT = Path(__file__).parents[1]
PUBLIC = [
    name
    for name in vars(trio_stream)
    if not name.startswith("_") and not inspect.ismodule(vars(trio_stream)[name])
]


def public_members() -> list[str]:
    """The public classes and functions, and as `Class.member` what a user calls or reads of them."""
    found = []
    for name in PUBLIC:
        value = vars(trio_stream)[name]
        if inspect.isclass(value) or inspect.isfunction(value):
            found.append(name)
        if inspect.isclass(value):
            found += [
                f"{name}.{member}"
                for member, attribute in vars(value).items()
                if not member.startswith("_")
                and (inspect.isroutine(attribute) or isinstance(attribute, property))
            ]
    return found


def test_the_names_of_the_contract_can_be_imported_from_the_top() -> None:
    contract = """
        ALL BusyResourceError CloseReason ClosedResourceError Cursor EndOfSubject Event EventPublisher Interest
        InvalidCommitError NoOpEventPublisher Payload PayloadEvents PublisherDisabledError PublisherStatistics
        ReplayFunc SnapshotAppender SnapshotFailed SnapshotFunc SnapshotHandlers Source StaleCursorError Subject
        SubscribeRequest Subscription SubscriptionForceClosed SubscriptionInfo SubscriptionLagged SubscriptionState
        SubscriptionStatistics Topic UnknownTopicError WouldBlock close_subscription_event open_publisher
    """
    assert set(contract.split()) <= set(PUBLIC)


@pytest.mark.parametrize("name", public_members())
def test_what_is_public_has_a_docstring(name: str) -> None:
    value: object = trio_stream
    for part in name.split("."):
        value = getattr(value, part)
    assert inspect.getdoc(value)


def test_the_types_are_part_of_the_package() -> None:
    assert files(trio_stream).joinpath("py.typed").is_file()


def test_importing_the_core_does_not_import_the_optional_worlds() -> None:
    program = "import sys, trio_stream; print(*sys.modules)"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=unmeasured
    )
    optional = {"click", "rich", "sqlite3", "trio_stream.cli", "trio_stream.stores", "uvloop"}
    assert not optional & set(result.stdout.split())


def test_the_script_calls_the_main_function() -> None:
    (script,) = entry_points(group="console_scripts", name="trio-stream")
    assert script.value == "trio_stream.__main__:main"
    assert callable(script.load())


def test_the_changelog_begins_with_this_version() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == version("trio-stream")


@pytest.mark.parametrize("command", ["demo", "test"])
def test_the_readme_has_one_line_that_sets_up_everything(command: str) -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    at = lines.index(f"<!-- {command} command -->")
    fence, line, end = lines[at + 1 : at + 4]
    assert (fence, end) == ("```sh", "```")
    assert line.startswith("python3 -m venv ")
