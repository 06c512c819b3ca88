"""Files to import, good and bad: whole batches up to the first bad line, and never a traceback."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli.console import Command, Result
from fuzz.fuzzing import fuzzed, json_values
from hypothesis import given, strategies as st

pytestmark = pytest.mark.slow

BATCH = 2

good_keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=5)
good = st.tuples(good_keys, json_values)
BAD = [
    b"{", b"[]", b"1", b"nul", b"{}", b'{"key": "a"}', b'{"value": 1}', b'{"key": null, "value": 1}',
    b'{"key": "", "value": 1}', b'{"key": "a\\u0000b", "value": 1}', b'{"key": "\\ud800", "value": 1}',
    b'{"key": [], "value": 1}', b'{"key": 1.5, "value": 1}', b'{"key": true, "value": 1}',
    b'{"key": "a", "value": NaN}',
    b'{"key": "a", "value": 1e999}', b'{"key": "a", "value": "\\ud800"}', b'{"key": "a", "value": 1} x', b"\xff\xfe",
    b"\0", b'{"key": "a", "value": "\x01"}', b'{"key": "a", "value": ' + b"9" * 5000 + b"}",
    b'{"key": "a", "value": ' + b"[" * 1500 + b"]" * 1500 + b"}",
    b'{"key": "a", "value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"key": "a", "value": ' + b"[" * 100_000,
]  # fmt: skip
bad = st.sampled_from(BAD)


def check_ended_well(result: Result) -> None:
    assert result.code in (0, 1)
    assert "Traceback" not in result.err
    if result.code:
        assert result.err.startswith("Error: ")
        assert result.out == ""


def run(command: Command, folder: Path, content: bytes, *options: str) -> tuple[Result, dict[str, Any], int]:
    """The result, the state and the index of a new store."""
    for old in folder.glob("trio-stream.db*"):
        old.unlink()
    (folder / "data").write_bytes(content)
    result = command("import", "jobs", "data", "--batch", f"{BATCH}", *options)
    check_ended_well(result)
    found = re.search(r"up to index (\d+)", result.out + result.err)
    listed = command("list", "jobs", "--json")
    # Not by splitlines(), which takes U+0085 in a value for an end of the line.
    lines = [json.loads(each) for each in listed.out.split("\n") if each] if listed.code == 0 else []
    state = {each["key"]: each["value"] for each in lines}
    return result, state, int(found[1]) if found else 0


def line(record: tuple[str, Any]) -> bytes:
    return json.dumps({"key": record[0], "value": record[1]}).encode()


@fuzzed
@given(st.lists(good, max_size=7), st.none() | bad, st.lists(good, max_size=3), st.booleans())
def test_ndjson_is_imported_up_to_the_last_whole_batch_before_a_bad_line(
    command: Command,
    folder: Path,
    before: Sequence[Any],
    broken: bytes | None,
    after: Sequence[Any],
    ends: bool,
) -> None:
    lines = [line(record) for record in before]
    if broken is not None:
        lines += [broken, *map(line, after)]
    result, state, index = run(command, folder, b"\n".join(lines) + b"\n" * ends)
    whole = len(before) if broken is None else len(before) // BATCH * BATCH
    assert result.code == (broken is not None)
    assert state == dict(before[:whole])
    assert index == -(-whole // BATCH)
    if broken is not None:
        assert result.err.startswith(f"Error: data:{len(before) + 1}: ")


@pytest.mark.parametrize("number", range(len(BAD)), ids=lambda number: f"line {number}")
def test_each_bad_line_is_named_by_its_number_and_its_batch_is_left_out(
    command: Command, folder: Path, number: int
) -> None:
    lines = [*map(line, zip("abc", "xyz", strict=True)), BAD[number]]
    result, state, index = run(command, folder, b"\n".join(lines))
    assert result.err.startswith("Error: data:4: ")
    assert (state, index) == ({"a": "x", "b": "y"}, 1)


@fuzzed
@given(
    st.binary(max_size=200) | st.lists(bad | good.map(line), max_size=5).map(b"\n".join),
    st.sampled_from(["ndjson", "csv"]),
)
def test_whatever_is_in_a_file_ends_with_an_error_or_a_result(
    command: Command, folder: Path, content: bytes, form: str
) -> None:
    result, state, index = run(command, folder, content, "--format", form)
    assert len(state) <= index * BATCH
    assert index == 0 or f"in {index} commit" in result.out + result.err


csv_fields = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@fuzzed
@given(st.lists(st.tuples(csv_fields, csv_fields), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_csv_is_imported_as_it_was_written(
    command: Command, folder: Path, rows: Sequence[tuple[str, str]], end: str
) -> None:
    def quoted(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    text = end.join(",".join(map(quoted, row)) for row in [("key", "value"), *rows])
    bad_row = next((number for number, (key, _) in enumerate(rows) if not key), None)
    result, state, _ = run(command, folder, text.encode(), "--format", "csv")
    whole = len(rows) if bad_row is None else bad_row // BATCH * BATCH
    assert state == dict(rows[:whole])
    assert result.code == (bad_row is not None)


@pytest.mark.parametrize("size", [1_000, 5_000_000])
def test_a_huge_line_is_imported_like_any_other(command: Command, folder: Path, size: int) -> None:
    content = json.dumps({"key": "a", "value": "x" * size}).encode()
    result, state, index = run(command, folder, content + b"\n" + content.replace(b'"a"', b'"b"'))
    assert (result.code, index, {key: len(value) for key, value in state.items()}) == (
        0,
        1,
        {"a": size, "b": size},
    )


def test_of_a_key_twice_in_one_object_and_twice_in_one_batch_the_last_one_holds(
    command: Command, folder: Path
) -> None:
    twice = b'{"key": "x", "value": 1, "key": "a", "value": 2}\n{"key": "a", "value": 3}\n'
    result, state, index = run(command, folder, twice)
    assert (result.code, state, index) == (0, {"a": 3}, 1)
