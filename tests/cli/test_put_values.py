"""put: a value from the argument, from standard input or a file, as JSON or as a text."""

import json
from pathlib import Path

import pytest
from cli.console import Command, run


def value(command: Command, key: str = "a") -> object:
    return json.loads(command("get", "jobs", key, "--json").out)["value"]


@pytest.mark.parametrize("source", ["-", "@file"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"x": [1, null]}', {"x": [1, None]}),
        (b'\n{\n "x": "\xc3\xa9"\n}\n', {"x": "é"}),
        (b"\xef\xbb\xbf-1\r\n", -1),
        ('"é"'.encode("utf-16"), "é"),
        (b'"' + b"x" * 1_000_000 + b'"', "x" * 1_000_000),
    ],
    ids=["object", "lines", "mark", "utf-16", "long"],
)
def test_json_comes_from_standard_input_or_a_file(
    command: Command, folder: Path, source: str, content: bytes, expected: object
) -> None:
    (folder / "file").write_bytes(content)
    result = command("put", "jobs", "a", source, stdin=content)
    assert (result.code, result.out, result.err) == (0, "1\n", "")
    assert value(command) == expected


@pytest.mark.parametrize("text", ["hello", "two words\n", "", "[1", "-", "\ufeffx", "é\x1b[2J"])
@pytest.mark.parametrize("source", ["-", "@file", "argument"])
def test_raw_takes_a_text_as_it_is(command: Command, folder: Path, source: str, text: str) -> None:
    (folder / "file").write_bytes(text.encode())
    if source == "argument":
        if text == "-":
            return
        result = command("put", "jobs", "a", "--raw", "--", text)
    else:
        result = command("put", "jobs", "a", source, "--raw", stdin=text.encode())
    assert result.code == 0
    assert value(command) == text
    assert command("get", "jobs", "a", "--raw").out == text


def test_a_text_that_begins_with_an_at_sign_is_given_as_json_or_by_standard_input(command: Command) -> None:
    command("put", "jobs", "a", '"@home"')
    assert value(command) == "@home"
    command("put", "jobs", "b", "-", "--raw", stdin=b"@home")
    assert value(command, "b") == "@home"


def test_what_is_no_text_is_printed_as_json_by_get_raw(command: Command) -> None:
    command("put", "jobs", "a", '{"x": 1}')
    assert command("get", "jobs", "a", "--raw").out == '{"x": 1}\n'
    refused = command("get", "jobs", "a", "--raw", "--json")
    assert (refused.code, refused.out) == (2, "")


BAD = [
    (b'{"x": 1,\n "y" 2}', ":2: not JSON: Expecting ':' delimiter at column 6"),
    (b"", ":1: not JSON: Expecting value at column 1"),
    (b"1 2", ":1: not JSON: Extra data at column 3"),
    (b'"a\n\xff"', ":2: not UTF-8"),
    (b'"\\ud800"', ": not JSON: half of a surrogate pair"),
    (b"[" * 100_000, ": too deeply nested"),
    (b"[" * 300 + b"]" * 300, ": nested more than 200 levels deep"),
    (b"1e999", ": Out of range float values are not JSON compliant"),
    (b"NaN", ": not JSON: NaN is not a value"),
    (b"9" * 5000, ": Exceeds the limit"),
]


@pytest.mark.parametrize(("content", "reason"), BAD, ids=[reason for _, reason in BAD])
@pytest.mark.parametrize("source", ["-", "@file"])
def test_what_is_wrong_with_the_input_is_named_with_its_line(
    command: Command, folder: Path, source: str, content: bytes, reason: str
) -> None:
    (folder / "file").write_bytes(content)
    result = command("put", "jobs", "a", source, stdin=content)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {'standard input' if source == '-' else 'file'}{reason}")
    assert not (folder / "trio-stream.db").exists()


@pytest.mark.parametrize("source", ["-", "@file"])
def test_raw_must_be_utf_8(command: Command, folder: Path, source: str) -> None:
    (folder / "file").write_bytes(b"a\nb\n\xff")
    result = command("put", "jobs", "a", source, "--raw", stdin=b"a\nb\n\xff")
    assert result.code == 1
    assert result.err.endswith(":3: not UTF-8\n")
    assert command("put", "jobs", "a", "\udcff", "--raw").code == 2


@pytest.mark.parametrize("source", ["@missing", "@.", "@a\udcff"])
def test_a_file_that_cannot_be_read_is_named(command: Command, source: str) -> None:
    result = command("put", "jobs", "a", source)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: ")
    assert "Traceback" not in result.err


def test_an_at_sign_without_a_name_is_wrong_usage(command: Command, folder: Path) -> None:
    for options in ([], ["--raw"]):
        result = command("put", "jobs", "a", "@", *options)
        assert (result.code, result.out) == (2, "")
        assert "'@' is without the name of a file" in result.err
    assert list(folder.iterdir()) == []


@pytest.mark.anyio
async def test_a_pipe_is_read_to_its_end() -> None:
    assert (await run("put", "jobs", "a", "-", stdin=b'{"x":\n1}\n')).out == "1\n"
    assert (await run("get", "jobs", "a")).out == '{"x": 1}\n'
