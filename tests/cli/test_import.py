"""import: NDJSON and CSV, whole batches, and bad lines by their number."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.console import PROGRAM, Command, put, run


def values(command: Command, topic: str = "jobs") -> dict[str, object]:
    return {each["key"]: each["value"] for each in command("list", topic, "--json").objects}


def test_ndjson_has_a_key_and_a_value_per_line(command: Command, folder: Path) -> None:
    (folder / "jobs.ndjson").write_text(
        '{"key": "a", "value": {"x": 1}}\n\n{"key": 7, "value": null, "more": 0}\n'
    )
    result = command("import", "jobs", "jobs.ndjson")
    assert (result.code, result.err) == (0, "")
    assert result.out == "committed 2 records in 1 commit, 2 keys, up to index 1\n"
    assert values(command) == {"a": {"x": 1}, "7": None}


def test_with_key_the_whole_record_is_the_value(command: Command, folder: Path) -> None:
    (folder / "jobs.ndjson").write_text('{"id": "a", "x": [true]}')
    assert command("import", "jobs", "jobs.ndjson", "--key", "id").code == 0
    assert values(command) == {"a": {"id": "a", "x": [True]}}


def test_csv_is_known_by_its_name_and_has_texts_under_a_header(command: Command, folder: Path) -> None:
    (folder / "people.CSV").write_text('email,name\na@b,"Ann ""A"" Lee"\nc@d,"two\nlines"\n')
    assert command("import", "people", "people.CSV", "--key", "email").code == 0
    assert values(command, "people") == {
        "a@b": {"email": "a@b", "name": 'Ann "A" Lee'},
        "c@d": {"email": "c@d", "name": "two\nlines"},
    }


def test_csv_without_key_has_the_columns_key_and_value(command: Command, folder: Path) -> None:
    (folder / "jobs.csv").write_text("value,key,more\n1,a,x\n2,b,y\n")
    assert command("import", "jobs", "jobs.csv").code == 0
    assert values(command) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_the_data(
    command: Command, folder: Path, form: str
) -> None:
    text = (
        "key,value\r\na,1\r\n\r\nb,2\r\n"
        if form == "csv"
        else '{"key":"a","value":"1"}\r\n\r\n{"key":"b","value":"2"}\r\n'
    )
    (folder / "data").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert command("import", "jobs", "data", "--format", form).code == 0
    assert values(command) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("name", "text"), [("x.csv", ""), ("x.csv", "key,value\n"), ("x.ndjson", ""), ("x.ndjson", "\n")]
)
def test_a_file_without_records_is_no_error(command: Command, folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    result = command("import", "jobs", name, "--json")
    assert (result.code, result.objects) == (0, [{"records": 0, "commits": 0, "keys": 0, "index": None}])
    assert command("import", "jobs", name).out == "nothing was committed\n"


def test_each_batch_is_one_commit(command: Command, folder: Path) -> None:
    (folder / "x.ndjson").write_text("".join(f'{{"key": "{each}", "value": 1}}\n' for each in "abcde"))
    result = command("import", "jobs", "x.ndjson", "--batch", "2", "--json", "--namespace", "n")
    assert result.objects == [{"records": 5, "commits": 3, "keys": 5, "index": 3}]
    listed = command("list", "jobs", "--namespace", "n", "--json").objects
    assert [each["index"] for each in listed] == [1, 1, 2, 2, 3]


BAD = [
    ("ndjson", '{"key": "d" "value": 1}', "not JSON: Expecting ',' delimiter at column 13"),
    ("ndjson", '["d", 1]', "not an object"),
    ("ndjson", '{"value": 1}', "no 'key' here (there is: value); --key says which one is the key"),
    ("ndjson", '{"\x9b": 1}', "no 'key' here (there is: \"\\u009b\"); --key says which one is the key"),
    ("ndjson", '{"key": "d"}', "no 'value' here (there is: key); --key says which one is the key"),
    ("ndjson", "{}", "no 'key' here (there is: none); --key says which one is the key"),
    ("ndjson", '{"key": true, "value": 1}', "the key is true, neither text nor a whole number"),
    ("ndjson", '{"key": 1.5, "value": 1}', "the key is 1.5, neither text nor a whole number"),
    ("ndjson", '{"key": "", "value": 1}', "a key must not be empty"),
    ("ndjson", '{"key": "d", "value": NaN}', "not JSON: NaN is not a value"),
    ("ndjson", '{"key": "d", "value": "\\ud800"}', "not JSON: half of a surrogate pair"),
    ("ndjson", b'{"key": "d", "value": "\xff"}', "not UTF-8"),
    ("csv", "d", "1 fields under 2 columns"),
    ("csv", "d,1,2", "3 fields under 2 columns"),
    ("csv", '"d"x,1', "',' expected after '\"'"),
    ("csv", b"\xff,1", "not UTF-8"),
]


@pytest.mark.parametrize(
    ("form", "line", "reason"), BAD, ids=[f"{form}: {reason}" for form, _, reason in BAD]
)
def test_a_bad_line_is_named_and_nothing_of_its_batch_is_committed(
    command: Command, folder: Path, form: str, line: str | bytes, reason: str
) -> None:
    bad = line.encode() if isinstance(line, str) else line
    good = [f"{key},1" if form == "csv" else f'{{"key": "{key}", "value": 1}}' for key in "abc"]
    first = ["key,value"] if form == "csv" else []
    name = f"x.{form}"
    (folder / name).write_bytes(b"\n".join([*(each.encode() for each in first + good), bad, b""]))
    result = command("import", "jobs", name, "--batch", "2")
    assert (result.code, result.out) == (1, "")
    number = 5 if form == "csv" else 4
    assert result.err == (
        f"Error: {name}:{number}: {reason}\n"
        f"Committed 2 records in 1 commit, 2 keys, up to index 1 (through line {number - 2}).\n"
    )
    assert list(values(command)) == ["a", "b"]


def test_a_bad_line_in_the_first_batch_leaves_nothing(command: Command, folder: Path) -> None:
    (folder / "x.csv").write_text("key,value\na,1\nb\n")
    result = command("import", "jobs", "x.csv")
    assert (result.code, result.err) == (
        1,
        "Error: x.csv:3: 1 fields under 2 columns\nNothing was committed.\n",
    )
    assert values(command) == {}


@pytest.mark.parametrize(
    ("header", "arguments", "reason"),
    [
        ("name,mail", [], "no 'key' here (there is: name, mail); --key says which one is the key"),
        ("name,mail", ["--key", "email"], "no 'email' here (there is: name, mail)"),
        ("name,name", ["--key", "name"], "two columns have one name"),
    ],
)
def test_a_header_that_does_not_fit_is_named(
    command: Command, folder: Path, header: str, arguments: list[str], reason: str
) -> None:
    (folder / "x.csv").write_text(f"{header}\nx,y\n")
    result = command("import", "people", "x.csv", *arguments)
    assert result.code == 1
    assert reason in result.err


@pytest.mark.parametrize("rows", ["", "x,y\n"])
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("name,mail", "no 'key' here (there is: name, mail); --key says which one is the key"),
        ("key", "no 'value' here (there is: key); --key says which one is the key"),
        ("\x1b[2Jname,key", "no 'value' here (there is: \"\\u001b[2Jname\", key); --key says"),
        ('{"key":"a","value":1}', "JSON, not the names of columns; NDJSON needs --format ndjson"),
    ],
)
def test_a_header_that_lacks_a_column_is_an_error_with_and_without_rows(
    command: Command, folder: Path, header: str, rows: str, reason: str
) -> None:
    (folder / "x.csv").write_text(f"\n\n{header}\n{rows}")
    result = command("import", "people", "x.csv")
    assert result.code == 1
    assert result.err.startswith(f"Error: x.csv:3: {reason}")


def test_blank_lines_may_stand_before_the_header(command: Command, folder: Path) -> None:
    (folder / "jobs.csv").write_text("\n\r\nkey,value\na,1\n")
    assert command("import", "jobs", "jobs.csv").code == 0
    assert values(command) == {"a": "1"}


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_named(command: Command, name: str) -> None:
    result = command("import", "jobs", name)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {name}: ")


@pytest.mark.anyio
async def test_standard_input_is_read_and_what_list_prints_can_be_imported() -> None:
    await put("a", '{"x": "é"}')
    await put("b", "[1]")
    listed = (await run("list", "jobs", "--json")).out
    imported = await run("import", "copies", "-", "--json", stdin=listed.encode())
    assert (imported.code, imported.objects, imported.err) == (
        0,
        [{"records": 2, "commits": 1, "keys": 2, "index": 3}],
        "",
    )
    copies = (await run("list", "copies", "--json")).objects
    assert {each["key"]: each["value"] for each in copies} == {"a": {"x": "é"}, "b": [1]}
    failed = await run("import", "copies", "-", stdin=b"nonsense\n")
    assert (failed.code, failed.err.splitlines()[0]) == (
        1,
        "Error: standard input:1: not JSON: Expecting value at column 1",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the `script` of other systems has other arguments")
def test_there_is_a_progress_bar_on_a_terminal_only(folder: Path) -> None:
    (folder / "x.csv").write_text("key,value\n" + "".join(f"{number},x\n" for number in range(3000)))
    line = f"{' '.join(PROGRAM)} import jobs x.csv --batch 10"
    shown = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert shown.returncode == 0
    assert re.search(r"[\d,]+ records .*0:00", shown.stdout)
    assert shown.stdout.rstrip().endswith(
        "committed 3,000 records in 300 commits, 3,000 keys, up to index 300"
    )


def test_a_long_field_is_taken(command: Command, folder: Path) -> None:
    (folder / "x.csv").write_text(f"key,value\na,{'x' * 200_000}\n")
    assert command("import", "jobs", "x.csv").code == 0
    assert len(json.loads(command("get", "jobs", "a").out)) == 200_000
