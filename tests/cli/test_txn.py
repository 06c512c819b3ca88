"""txn: several operations in one commit, all or none."""

import json
from pathlib import Path

import pytest
from cli.console import Command, run


def lines(*operations: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in operations)


def array(*operations: object) -> bytes:
    return json.dumps(operations, indent=1).encode()


def state(command: Command, topic: str = "jobs", *options: str) -> dict[str, object]:
    return {each["key"]: each["value"] for each in command("list", topic, "--json", *options).objects}


PUT_A = {"type": "put", "topic": "jobs", "key": "a", "value": 1, "expect": 0}
PUT_B = {"topic": "other", "key": 7, "value": {"x": None}, "namespace": "n"}
DELETE_C = {"type": "delete", "topic": "jobs", "key": "c", "expect": 1}


@pytest.mark.parametrize("form", [lines, array], ids=["lines", "array"])
@pytest.mark.parametrize("source", [[], ["-"], ["ops"]], ids=["default", "-", "file"])
def test_all_is_done_in_one_commit(command: Command, folder: Path, form: object, source: list[str]) -> None:
    assert callable(form)
    content = form(PUT_A, PUT_B, DELETE_C)
    (folder / "ops").write_bytes(content)
    command("put", "jobs", "c", "0")
    result = command("txn", *source, stdin=b"" if source == ["ops"] else content)
    assert (result.code, result.out, result.err) == (0, "2\n", "")
    assert state(command) == {"a": 1}
    assert state(command, "other", "--namespace", "n") == {"7": {"x": None}}


def test_one_expectation_that_fails_changes_nothing(command: Command) -> None:
    command("put", "jobs", "a", "0")
    result = command("txn", stdin=lines(DELETE_C | {"expect": 0}, PUT_A, PUT_B))
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "Error: key 'a' in namespace 'default' of topic 'jobs' has index 1, not 0 as expected (0: does not exist)\n"
    )
    assert state(command) == {"a": 0}
    assert command("topics").out == "jobs\n"


def test_it_reads_what_list_prints(command: Command) -> None:
    command("put", "jobs", "a", "1")
    command("put", "jobs", "b", '"x"', "--namespace", "n")
    listed = command("list", "jobs", "--json").out + command("list", "jobs", "--namespace", "n", "--json").out
    assert command("--store", "sqlite:copy.db", "txn", "--json", stdin=listed.encode()).objects == [
        {"index": 1}
    ]
    assert command("--store", "sqlite:copy.db", "list", "jobs").out == "       1  a  1\n"
    assert (
        command("--store", "sqlite:copy.db", "list", "jobs", "--namespace", "n").out == '       1  b  "x"\n'
    )


def test_topic_and_namespace_are_for_operations_that_name_none(command: Command) -> None:
    operations = lines({"key": "a", "value": 1}, {"key": "b", "value": 2, "namespace": "m", "topic": "t"})
    assert command("txn", "--topic", "jobs", "--namespace", "n", stdin=operations).code == 0
    assert state(command, "jobs", "--namespace", "n") == {"a": 1}
    assert state(command, "t", "--namespace", "m") == {"b": 2}


BAD = [
    (b"{", ":1: not JSON: Expecting property name"),
    (b"1", ":1: not an object"),
    (b'{"topic": "t", "value": 1}', ":1: no 'key' here (there is: topic, value)"),
    (b'{"key": "a", "value": 1}', ":1: no 'topic' here (there is: key, value); --topic is for operations"),
    (b'{"key": "a", "topic": "t"}', ":1: no 'value' here (there is: key, topic)"),
    (b'{"key": "a", "topic": "t", "value": 1, "expects": 2}', ':1: "expects" is no member of an operation'),
    (b'{"key": "a", "topic": "t", "value": 1, "type": "get"}', ':1: the type is "get", neither "put" nor'),
    (b'{"key": "a", "topic": "t", "value": 1, "type": "delete"}', ":1: a delete has no value"),
    (b'{"key": "a", "topic": "t", "value": 1, "expect": -1}', ":1: expects -1, which is no index"),
    (b'{"key": "a", "topic": "t", "value": 1, "expect": true}', ":1: expects true, which is no index"),
    (b'{"key": "a", "topic": 5, "value": 1}', ":1: the topic is 5, not a text"),
    (b'{"key": "a", "topic": "t", "value": 1, "namespace": null}', ":1: the namespace is null, not a text"),
    (b'{"key": "", "topic": "t", "value": 1}', ":1: a key must not be empty"),
    (b'{"key": "a", "topic": "t", "value": "\\ud800"}', ":1: not JSON: half of a surrogate pair"),
    (b"\n \n", ": no operations"),
    (b"[]", ": no operations"),
    (b'[\n{"key": "a", "topic": "t", "value": 1},\n{}]', ":3: no 'key' here (there is: none)"),
    (
        b'{"key": "a", "topic": "t", "value": 1, "expect": 1}\n{"key": "a", "topic": "t", "value": 1, "expect": 2}',
        ":2: expects another index of key 'a' in namespace 'default' of topic 't' than a line before",
    ),
    (b'{"key": "a", "topic": "t", "value": "\xff"}', ":1: not UTF-8"),
]


@pytest.mark.parametrize(("content", "reason"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_named_and_nothing_is_changed(
    command: Command, folder: Path, content: bytes, reason: str
) -> None:
    result = command("txn", stdin=content)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: standard input{reason}")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_named(command: Command, name: str) -> None:
    result = command("txn", name)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {name}: ")


@pytest.mark.anyio
async def test_of_two_at_the_same_index_one_is_refused() -> None:
    operation = lines(PUT_A)
    results = [await run("txn", stdin=operation) for _ in range(2)]
    assert [result.code for result in results] == [0, 1]
