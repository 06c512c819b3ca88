"""Cursors, names and values on the command line: a message of one line and the right exit code, never a traceback."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli.console import Command
from fuzz.fuzzing import fuzzed, json_values
from hypothesis import given, strategies as st

# What can be in an argument at all: no NUL, and bytes that are no UTF-8 come as half of a surrogate pair.
arguments = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
) | st.sampled_from(
    [
        "",
        "@",
        "1@",
        "@x",
        "-1@x",
        "1.0@x",
        "+1@x",
        "1_0@x",
        "٣@x",
        "²@x",
        "1@x",
        "1@@",
        "0@x",
        " 1@x",
        "1@ ",
        "\udcff",
        "--",
        "-",
        "@.",
        "@missing",
    ]
)

pytestmark = pytest.mark.slow

numerals = st.sampled_from(["9" * 30, "9" * 4300, "9" * 4301, "9" * 5000])


@fuzzed
@given(arguments | numerals.map(lambda digits: f"{digits}@x"))
def test_a_cursor_of_any_form_is_refused_or_looked_for(command: Command, folder: Path, cursor: str) -> None:
    """There is no folder for the store, so that a right cursor ends there."""
    result = command("--store", "sqlite:missing/jobs.db", "watch", "jobs", f"--from={cursor}")
    assert "Traceback" not in result.err
    assert result.out == ""
    index, separator, epoch = cursor.partition("@")
    is_right = index.isascii() and index.isdecimal() and bool(separator and epoch)
    assert result.code in ((1, 2) if is_right else (2,))
    assert not list(folder.iterdir())


@fuzzed
@given(arguments, arguments, arguments)
def test_names_and_values_are_taken_or_refused(
    command: Command, folder: Path, topic: str, key: str, value: str
) -> None:
    for old in folder.glob("trio-stream.db*"):
        old.unlink()
    result = command("put", "--", topic, key, value)
    assert "Traceback" not in result.err
    assert result.code in ((0, 1, 2) if value.startswith(("@", "-")) else (0, 2))
    if result.code == 0:
        assert command("get", "--", topic, key).code == 0


@fuzzed
@given(arguments | numerals)
def test_an_index_to_compact_to_is_taken_or_refused(command: Command, folder: Path, index: str) -> None:
    command("put", "jobs", "a", "1")
    result = command("compact", "--", index)
    assert "Traceback" not in result.err
    assert result.code in (0, 1, 2)


@fuzzed
@given(st.binary(max_size=60), st.booleans())
def test_a_value_on_standard_input_is_taken_or_refused(command: Command, data: bytes, is_raw: bool) -> None:
    result = command("put", "jobs", "a", "-", *(["--raw"] if is_raw else []), stdin=data)
    assert "Traceback" not in result.err
    assert result.code in (0, 1)
    if result.code == 0 and is_raw:
        assert command("get", "jobs", "a", "--raw").out.encode() == data


members = st.sampled_from(["type", "topic", "namespace", "key", "value", "expect", "index", "other"])
operations = st.dictionaries(
    members, json_values | st.sampled_from(["put", "delete", "jobs", 0, 1]), max_size=6
)


@fuzzed
@given(
    st.binary(max_size=60) | st.lists(operations, max_size=4).map(lambda each: json.dumps(each).encode()),
    st.sampled_from([[], ["--topic", "jobs"]]),
)
def test_a_transaction_is_done_or_refused_as_a_whole(
    command: Command, data: bytes, options: Sequence[str]
) -> None:
    command("put", "jobs", "a", "1")
    before = command("status", "--json").objects[0]["head"]
    result = command("txn", *options, stdin=data)
    assert "Traceback" not in result.err
    assert result.code in (0, 1)
    assert command("status", "--json").objects[0]["head"] == before + (result.code == 0)


@fuzzed
@given(arguments | st.tuples(arguments, json_values.map(json.dumps)).map("=".join))
def test_a_field_to_wait_for_is_taken_or_refused(command: Command, field: str) -> None:
    command("put", "jobs", "a", '{"x": {"y": 1}}')
    result = command("wait", "jobs", "a", "--timeout", "0", f"--field={field}")
    assert "Traceback" not in result.err
    assert result.code in (0, 1, 2)


@fuzzed
@given(st.sampled_from(["backup", "backup --force", "restore", "import jobs", "txn"]), arguments)
def test_a_name_of_a_file_is_taken_or_refused(command: Command, folder: Path, words: str, name: str) -> None:
    command("put", "jobs", "a", "1")
    result = command(*words.split(), "--", f"{folder}/{name}")
    assert "Traceback" not in result.err
    assert result.code in (0, 1, 2)
    assert command("get", "jobs", "a").out == "1\n"
    for each in folder.iterdir():
        if each.is_file():
            each.unlink()


@pytest.mark.parametrize("depth", [10, 900, 1_500, 30_000])
def test_a_value_of_any_depth_is_kept_or_refused(command: Command, depth: int) -> None:
    result = command("put", "jobs", "a", "[" * depth + "]" * depth)
    assert "Traceback" not in result.err
    assert result.code in (0, 2)
    assert (command("get", "jobs", "a").code == 0) == (result.code == 0)
