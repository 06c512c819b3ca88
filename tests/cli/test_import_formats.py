"""import: JSON arrays, other delimiters and encodings, keys inside of records."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.console import PROGRAM, Command

PODS: dict[str, Any] = {
    "apiVersion": "v1",
    "numbers": [1.5e3, -2, [{"x": "]"}], {"items": 1}],
    "items": [
        {
            "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "w"}},
            "status": {"phase": "Running"},
        },
        {
            "metadata": {"name": "db", "labels": {"app.kubernetes.io/name": "d"}},
            "status": {"phase": "Pending"},
        },
    ],
    "kind": "List",
}


def values(command: Command, topic: str = "jobs") -> dict[str, object]:
    return {each["key"]: each["value"] for each in command("list", topic, "--json").objects}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("options", [[], ["--format", "json"]], ids=["by content", "by option"])
def test_a_json_array_of_records(
    command: Command, folder: Path, indent: int | None, options: list[str]
) -> None:
    records = [{"key": f"{n}", "value": {"x": "],[{" * n}} for n in range(5)]
    (folder / "jobs.json").write_text("\n " + json.dumps(records, indent=indent) + "\n")
    result = command("import", "jobs", "jobs.json", "--batch", "2", *options)
    assert (result.code, result.out) == (0, "committed 5 records in 3 commits, 5 keys, up to index 3\n")
    assert values(command) == {each["key"]: each["value"] for each in records}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("wrapped", [False, True])
def test_items_says_where_in_an_object_the_array_is(
    command: Command, folder: Path, indent: int | None, wrapped: bool
) -> None:
    document = {"first": 1, "outer": {"before": "items", **PODS}, "last": []} if wrapped else PODS
    (folder / "pods").write_text(json.dumps(document, indent=indent))
    path = "outer.items" if wrapped else "items"
    assert command("import", "pods", "pods", "--items", path, "--key", "metadata.name").code == 0
    assert values(command, "pods") == {"web": PODS["items"][0], "db": PODS["items"][1]}


@pytest.mark.parametrize(
    ("record", "path", "key"),
    [
        ({"a": {"b": "x"}}, "a.b", "x"),
        ({"a": {"b": 7}}, "a.b", "7"),
        ({"a.b": "exact", "a": {"b": "nested"}}, "a.b", "exact"),
        ({"a.b": {"c": "longest"}, "a": {"b": {"c": "x"}}}, "a.b.c", "longest"),
        ({"a.b": {"d": "x"}, "a": {"b": {"c": "leads on"}}}, "a.b.c", "leads on"),
        ({"": {"": "blank"}}, ".", "blank"),
    ],
)
def test_a_key_may_be_inside_the_record(
    command: Command, folder: Path, record: object, path: str, key: str
) -> None:
    (folder / "x").write_text(json.dumps(record))
    assert command("import", "jobs", "x", "--key", path).code == 0
    assert values(command) == {key: record}


def test_items_may_have_a_dot_in_its_name(command: Command, folder: Path) -> None:
    (folder / "x").write_text('{"a": {"c": [0]}, "a.b": {"c": [{"key": "k", "value": 1}]}}')
    assert command("import", "jobs", "x", "--items", "a.b.c").code == 0
    assert values(command) == {"k": 1}


BAD = [
    ('[{"key": "a", "value": 1}', [], ":1: not JSON: Expecting ',' or ']' at column 26"),
    ('[{"key": "a", "value": 1},]', [], ":1: not JSON: Expecting value at column 27"),
    ('[{"key": "a", "value": 1},\n  {"key" 1}]', [], ":2: not JSON: Expecting ':' delimiter at column 10"),
    ('[{"key": "a", "value": 1},\n\n\n  {"key": "b"}]', [], ":4: no 'value' here (there is: key); --key"),
    ('[{"key": "a", "value": 1}]\n[]', [], ":2: not JSON: Extra data at column 1"),
    ('[{"key": "a", "value": "\\ud800"},\n 5]', [], ":1: not JSON: half of a surrogate pair"),
    ('[{"key": "a", "value": 1},\n 5]', [], ":2: not an object"),
    ('[{"key": "a", "value": "x\n"}]', [], ":1: not JSON: Invalid control character at at column 26"),
    ('[{"key": "a", "value": "x', [], ":1: not JSON: Unterminated string starting at at column 24"),
    ("[" * 100_000, [], ":1: too deeply nested"),
    ('[{"key": "a", "value": NaN}]', [], ":1: not JSON: NaN is not a value"),
    ("[tru", [], ":1: not JSON: Expecting value at column 2"),
    ("[", [], ":1: not JSON: Expecting value at column 2"),
    ("{}", ["--format", "json"], ":1: not an array; --items says where in an object it is"),
    ("", ["--format", "json"], ":1: not an array; --items says where in an object it is"),
    ("{}", ["--items", "items"], ":1: no array items here"),
    ("[]", ["--items", "items"], ":1: not an object"),
    ('{"items": {}}', ["--items", "items"], ":1: items is not an array"),
    ('{"a": {"b": 1}}', ["--items", "a.c"], ":1: no array a.c here"),
    (
        '{"items": [], }',
        ["--items", "items"],
        ":1: not JSON: Expecting property name enclosed in double quotes",
    ),
    ('{"items": []', ["--items", "items"], ":1: not JSON: Expecting ',' or '}' at column 13"),
    ('{"items": []}}', ["--items", "items"], ":1: not JSON: Extra data at column 14"),
    ('{"items" []}', ["--items", "items"], ":1: not JSON: Expecting ':' at column 10"),
    ("{\n}", [], ":1: not JSON: Expecting property name enclosed in double quotes at column 1"),
]


@pytest.mark.parametrize(("text", "options", "reason"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_in_an_array_is_named_with_its_line(
    command: Command, folder: Path, text: str, options: list[str], reason: str
) -> None:
    (folder / "x").write_text(text)
    result = command("import", "jobs", "x", *options)
    assert (result.code, result.out) == (1, "")
    if text != "{\n}":
        assert result.err.startswith(f"Error: x{reason}")
    else:
        assert "--items says where its records are" in result.err
    assert values(command) == {}


def test_a_long_array_is_read_piece_by_piece_and_errors_have_their_place(
    command: Command, folder: Path
) -> None:
    """Pieces end anywhere in the records: their lengths are all different."""
    lines = [json.dumps({"key": f"{n}", "value": 'é\\u20ac\\"' * n, "n": 1.5e-7 * n}) for n in range(3000)]
    (folder / "x").write_text("[" + ",\n".join(lines) + "]")
    assert command("import", "jobs", "x").out.startswith("committed 3,000 records in 3 commits, 3,000 keys")
    assert len(values(command)) == 3000
    lines[2500] = lines[2500].replace('"key":', '"key";')
    (folder / "x").write_text("[" + ",\n".join(lines) + "]")
    assert command("import", "jobs", "x").err.startswith(
        "Error: x:2501: not JSON: Expecting ':' delimiter at column 7\nCommitted 2,000 records"
    )


MEMORY = """
import resource, sys
sys.argv = ["trio-stream", "import", "jobs", "x", "--batch", "100000"]
from trio_stream.__main__ import main
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from trio_stream.cli import _formats
before = used()
from trio_stream.cli._text import TextReader
from io import BufferedReader
with open("x", "rb", buffering=0) as file:
    assert sum(1 for _ in _formats.read_json(TextReader(BufferedReader(file)), None)) == 200_000
print(used() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other units elsewhere")
@pytest.mark.slow
def test_a_long_array_is_not_held_in_memory(folder: Path) -> None:
    with (folder / "x").open("w") as file:
        file.write("[")
        for n in range(200_000):
            file.write(("," if n else "") + json.dumps({"key": f"{n}", "value": "x" * 200}))
        file.write("]")
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=100
    )
    assert int(ended.stdout) * 1024 < 20_000_000 < (folder / "x").stat().st_size


@pytest.mark.parametrize(
    ("name", "delimiter", "options"),
    [
        ("x.tsv", "\t", []),
        ("x.TSV", "\t", []),
        ("x.csv", ";", ["--delimiter", ";"]),
        ("x", "\t", ["--delimiter", "\\t"]),
        ("x", "|", ["--delimiter", "|"]),
        ("x.tsv", ",", ["--delimiter", ","]),
        ("x.txt", "\t", ["--delimiter", "\t", "--format", "csv"]),
        ("x.csv", "é", ["--delimiter", "é"]),
        ("x.csv", " ", ["--delimiter", " "]),
    ],
)
def test_fields_may_be_parted_by_any_character(
    command: Command, folder: Path, name: str, delimiter: str, options: list[str]
) -> None:
    (folder / name).write_text(f'key{delimiter}value\na{delimiter}"x{delimiter}y"\n')
    assert command("import", "jobs", name, *options).code == 0
    assert values(command) == {"a": f"x{delimiter}y"}


CODECS = [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "cp1252",
    "utf-7",
    "gb18030",
]


@pytest.mark.parametrize("encoding", CODECS)
@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_a_file_may_be_in_any_encoding(command: Command, folder: Path, form: str, encoding: str) -> None:
    text = {
        "csv": "key,value\r\né,ü\r\nb,c\r\n",
        "ndjson": '{"key": "é", "value": "ü"}\n{"key": "b", "value": "c"}\n',
        "json": '[{"key": "é", "value": "ü"},\n{"key": "b", "value": "c"}]',
    }[form]
    (folder / "x").write_bytes(text.encode(encoding))
    assert command("import", "jobs", "x", "--format", form, "--encoding", encoding).code == 0
    assert values(command) == {"b": "c", "é": "ü"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_a_byte_order_mark_says_the_encoding(command: Command, folder: Path, encoding: str) -> None:
    text = '{"key": "é", "value": "ü"}'
    (folder / "x").write_bytes((("\ufeff" if encoding == "utf-16-be" else "") + text).encode(encoding))
    assert command("import", "jobs", "x").code == 0
    assert values(command) == {"é": "ü"}


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [
        ("utf-8", b"\xff"),
        ("utf-8", b"\xc3"),
        ("ascii", b"\xc3\xa9"),
        ("shift_jis", b"\x81\n"),
        ("utf-16-le", b"\x00\xd8x\x00"),
        ("utf-16-le", b"x"),
        ("utf-32-le", b"\xff\xff\xff\xff"),
        ("cp1252", b"\x81"),
    ],
)
def test_bytes_that_are_no_text_are_named_by_their_line(
    command: Command, folder: Path, encoding: str, bad: bytes
) -> None:
    good = "".join(f'{{"key": "{n}", "value": 1}}\n' for n in range(3)).encode(encoding)
    (folder / "x").write_bytes(good + bad)
    result = command("import", "jobs", "x", "--encoding", encoding, "--batch", "2")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"Error: x:4: not {encoding.upper()}\n"
        "Committed 2 records in 1 commit, 2 keys, up to index 1 (through line 2).\n"
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--encoding", "nonsense"],
        ["--encoding", ""],
        ["--encoding", "base64"],
        ["--encoding", "rot13"],
        ["--encoding", "undefined"],
        ["--encoding", "a\udcff"],
        ["--delimiter", ""],
        ["--delimiter", ";;"],
        ["--delimiter", '"'],
        ["--delimiter", "\n"],
        ["--delimiter", ";", "--format", "ndjson"],
        ["--delimiter", ";", "--items", "items"],
        ["--items", "items", "--format", "csv"],
        ["--items", ""],
        ["--key", ""],
    ],
    ids=range(15),
)
def test_wrong_usage_exits_with_2_and_changes_nothing(
    command: Command, folder: Path, options: list[str]
) -> None:
    (folder / "x").write_text("key,value\na,1\n")
    result = command("import", "jobs", "x", *options)
    assert (result.code, result.out) == (2, "")
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_it_says_how_many_keys_resulted(command: Command, folder: Path) -> None:
    (folder / "x").write_text("".join(f'{{"key": "{n % 7}", "value": {n}}}\n' for n in range(20)))
    assert command("import", "jobs", "x").out == "committed 20 records in 1 commit, 7 keys, up to index 1\n"
    assert command("import", "jobs", "x", "--json", "--batch", "5").objects == [
        {"records": 20, "commits": 4, "keys": 7, "index": 5}
    ]


def test_of_two_bad_records_in_a_batch_the_first_is_named(command: Command, folder: Path) -> None:
    """What only the store refuses is found later than what cannot be read."""
    (folder / "x").write_text('{"key": "a", "value": 1}\n{"key": "b", "value": 1e999}\nnonsense\n')
    result = command("import", "jobs", "x")
    assert result.err.startswith("Error: x:2: Out of range float values are not JSON compliant")


def test_a_pipe_that_pauses_inside_of_a_record_is_waited_for(command: Command) -> None:
    with subprocess.Popen(
        [*PROGRAM, "import", "jobs", "-", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        for byte in b'\xef\xbb\xbf[{"key": "\xc3\xa9", "value": 123}]':
            process.stdin.write(bytes([byte]))
            process.stdin.flush()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert values(command) == {"é": 123}
