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
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-7", "gb18030"]

good_keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=5)
good = st.tuples(good_keys, json_values)
BAD = [
    b"{", b"[]", b"1", b"nul", b"{}", b'{"key": "a"}', b'{"value": 1}', b'{"key": null, "value": 1}',
    b'{"key": "", "value": 1}', b'{"key": "a\\u0000b", "value": 1}', b'{"key": "\\ud800", "value": 1}',
    b'{"key": [], "value": 1}', b'{"key": 1.5, "value": 1}', b'{"key": true, "value": 1}',
    b'{"key": "a", "value": NaN}',
    b'{"key": "a", "value": 1e999}', b'{"key": "a", "value": "\\ud800"}', b'{"key": "a", "value": 1} x', b"\xff",
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
    result, state, index = run(command, folder, b"\n".join(lines) + b"\n" * ends, "--format", "ndjson")
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
    st.sampled_from(
        [
            [],
            ["--format", "ndjson"],
            ["--format", "csv"],
            ["--format", "json"],
            ["--items", "a.b"],
            ["--delimiter", ";"],
            ["--key", "a.b"],
            *(["--encoding", encoding] for encoding in ("utf-16", "utf-32", "latin-1", "utf-7", "shift_jis")),
        ]
    ),
)
def test_whatever_is_in_a_file_ends_with_an_error_or_a_result(
    command: Command, folder: Path, content: bytes, options: Sequence[str]
) -> None:
    result, state, index = run(command, folder, content, *options)
    assert len(state) <= index * BATCH
    assert index == 0 or f"in {index} commit" in result.out + result.err


@fuzzed
@given(
    st.lists(good, max_size=7),
    st.sampled_from([None, 1, "\t"]),
    st.integers(0, 3),
    st.sampled_from(ENCODINGS),
)
def test_an_array_is_imported_as_it_was_written(
    command: Command,
    folder: Path,
    records: Sequence[tuple[str, Any]],
    indent: Any,
    depth: int,
    encoding: str,
) -> None:
    document: Any = [{"key": key, "value": value} for key, value in records]
    for _ in range(depth):
        document = {"b": {"a": [0]}, "a": document, "z": [document]}
    options = ["--items", ".".join("a" * depth)] if depth else ["--format", "json"]
    content = json.dumps(document, indent=indent, ensure_ascii=False).encode(encoding)
    result, state, _ = run(command, folder, content, "--encoding", encoding, *options)
    assert result.code == 0
    assert state == dict(records)


@fuzzed
@given(st.lists(good, min_size=1, max_size=4), st.data())
def test_an_array_that_is_cut_off_or_changed_anywhere_ends_well(
    command: Command, folder: Path, records: Sequence[tuple[str, Any]], data: st.DataObject
) -> None:
    content = json.dumps([{"key": key, "value": value} for key, value in records]).encode()
    position = data.draw(st.integers(1, len(content) - 1))
    if data.draw(st.booleans()):
        result, _, _ = run(command, folder, content[:position])
        assert result.code == 1
    else:
        inserted = data.draw(
            st.sampled_from([b"]", b"}", b"[", b"{", b",", b'"', b"x", b"\n", b"\xff", b"0"])
        )
        run(command, folder, content[:position] + inserted + content[position:])


class Log:
    """What `watch --json` writes while the state changes, and what it has shown."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.lines: list[str] = []

    def write(self, kind: str, *events: dict[str, Any]) -> None:
        self.lines.append(json.dumps({"type": kind, "index": 1, "epoch": "e", "events": events}))

    def snapshot(self, state: dict[str, Any], parts: int) -> None:
        for start in range(parts):
            self.write("snapshot", *(put(key, value) for key, value in list(state.items())[start::parts]))
        self.write("end-of-snapshot")
        self.state = dict(state)

    def commit(self, changes: Sequence[tuple[str, Any]]) -> None:
        self.write(
            "commit", *(put(key, value) if value is not None else delete(key) for key, value in changes)
        )
        for key, value in changes:
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value


def put(key: str, value: Any) -> dict[str, Any]:
    return {"type": "put", "namespace": "default", "key": key, "value": value}


def delete(key: str) -> dict[str, Any]:
    return {"type": "delete", "namespace": "default", "key": key, "value": None}


few_keys = st.sampled_from("abcde")
steps = st.one_of(
    st.tuples(st.just("snapshot"), st.dictionaries(few_keys, st.integers()), st.integers(1, 3)),
    st.tuples(st.just("torn"), st.dictionaries(few_keys, st.integers())),
    st.tuples(st.just("commit"), st.lists(st.tuples(few_keys, st.none() | st.integers()), max_size=5)),
)


@fuzzed
@given(st.lists(steps, max_size=6))
def test_a_log_of_watch_gives_the_state_that_it_showed_last(
    command: Command, folder: Path, moves: Sequence[Any]
) -> None:
    log = Log()
    log.snapshot({"a": 1, "b": 1}, 1)
    for move in moves:
        match move:
            case ("snapshot", state, parts):
                log.write("new-snapshot-to-follow")
                log.snapshot(state, parts)
            case ("torn", state):
                log.write("new-snapshot-to-follow")
                log.write("snapshot", *(put(key, value) for key, value in state.items()))
                log.write("new-snapshot-to-follow")
                log.snapshot({"c": 1, **state}, 2)
            case ("commit", changes):
                log.commit(changes)
    result, state, _ = run(command, folder, "\n".join(log.lines).encode())
    assert result.code == 0
    assert state == log.state


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
