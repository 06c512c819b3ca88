"""put, get, list, delete and compact: what they do, what they print."""

import json
from pathlib import Path

import pytest
from cli.console import Command


def test_put_prints_the_index_and_get_the_value(command: Command) -> None:
    put = command("put", "jobs", "build", '{"state": "running", "é": [1, null]}')
    assert (put.code, put.out, put.err) == (0, "1\n", "")
    get = command("get", "jobs", "build")
    assert (get.code, get.out, get.err) == (0, '{"state": "running", "é": [1, null]}\n', "")


def test_a_value_may_begin_with_a_minus_after_two_of_them(command: Command) -> None:
    assert command("put", "jobs", "retries", "--", "-1").code == 0
    assert command("get", "jobs", "retries").out == "-1\n"


def test_json_is_one_object_a_line(command: Command) -> None:
    assert command("put", "jobs", "a", "1", "--json").objects == [{"index": 1}]
    assert command("put", "jobs", "b", '"x"', "--json").objects == [{"index": 2}]
    a = {"topic": "jobs", "namespace": "default", "key": "a", "index": 1, "value": 1}
    b = {"topic": "jobs", "namespace": "default", "key": "b", "index": 2, "value": "x"}
    assert command("get", "jobs", "b", "--json").objects == [b]
    assert command("list", "jobs", "--json").objects == [a, b]
    assert command("delete", "jobs", "a", "--json").objects == [{"index": 3}]


def test_list_shows_index_key_and_value_in_the_order_of_the_keys(command: Command) -> None:
    command("put", "jobs", "web", "true")
    command("put", "jobs", "db", "[]")
    assert command("list", "jobs").out == "       2  db  []\n       1  web  true\n"


def test_list_of_a_topic_without_keys_is_empty(command: Command) -> None:
    command("put", "jobs", "a", "1")
    listed = command("list", "other")
    assert (listed.code, listed.out, listed.err) == (0, "", "")


def test_list_writes_many_keys_in_pieces(command: Command, folder: Path) -> None:
    lines = [json.dumps({"key": f"{number:04}", "value": number}) for number in range(1000)]
    (folder / "many.ndjson").write_text("\n".join(lines))
    command("import", "jobs", "many.ndjson")
    assert [each["value"] for each in command("list", "jobs", "--json").objects] == list(range(1000))


def test_what_would_disturb_a_terminal_is_escaped(command: Command) -> None:
    command("put", "jobs", "two words\x1b[2J", '"\\u001b[31m"')
    assert command("list", "jobs").out == '       1  "two words\\u001b[2J"  "\\u001b[31m"\n'
    command("put", "jobs", "c1", '"\x9b2J"')
    assert command("get", "jobs", "c1").out == '"\\u009b2J"\n'


@pytest.mark.parametrize("bad", ["\x85", "\u2028", "\u2029", "\x9b", "\u202e", "\x7f"])
def test_an_object_is_one_line_and_harmless_however_it_is_read(command: Command, bad: str) -> None:
    command("put", "jobs", f"a{bad}", json.dumps(f"b{bad}", ensure_ascii=False))
    for arguments in (["list", "jobs"], ["get", "jobs", f"a{bad}"]):
        (line,) = command(*arguments, "--json").out.splitlines()
        assert line.isprintable()
        fields = json.loads(line)
        assert (fields["key"], fields["value"]) == (f"a{bad}", f"b{bad}")


def test_delete_removes_a_key_and_a_key_that_is_not_there_is_no_error(command: Command) -> None:
    command("put", "jobs", "a", "1")
    assert command("delete", "jobs", "a").out == "2\n"
    assert command("get", "jobs", "a").code == 1
    assert command("delete", "jobs", "a").out == "3\n"


def test_namespaces_are_apart(command: Command) -> None:
    command("put", "jobs", "a", "1")
    command("put", "jobs", "a", "2", "--namespace", "other")
    assert command("get", "jobs", "a").out == "1\n"
    assert command("get", "jobs", "a", "--namespace", "other").out == "2\n"
    assert command("list", "jobs", "--namespace", "other").out == "       2  a  2\n"
    command("delete", "jobs", "a", "--namespace", "other")
    assert command("get", "jobs", "a").code == 0


def test_expect_refuses_what_has_changed_since(command: Command) -> None:
    assert command("put", "jobs", "a", "1", "--expect", "0").code == 0
    again = command("put", "jobs", "a", "2", "--expect", "0")
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith(
        "Error: key 'a' in namespace 'default' of topic 'jobs' has index 1, not 0 as expected"
    )
    assert command("delete", "jobs", "a", "--expect", "7").code == 1
    assert command("put", "jobs", "a", "2", "--expect", "1").out == "2\n"


@pytest.mark.parametrize("place", ["sqlite:else.db", "option", "environment"])
def test_the_store_is_named_by_an_option_or_the_environment(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "environment":
        monkeypatch.setenv("TRIO_STREAM_STORE", f"sqlite:{folder}/else.db")
        assert command("put", "jobs", "a", "1").code == 0
    else:
        url = f"sqlite://{folder}/else.db" if place == "option" else place
        assert command("--store", url, "put", "jobs", "a", "1").code == 0
        assert command("--store", url, "get", "jobs", "a").code == 0
    assert [path.name for path in folder.iterdir()] == ["else.db"]


def test_compact_forgets_the_commits_up_to_an_index_or_all(command: Command) -> None:
    for value in "123":
        command("put", "jobs", "a", value)
    assert command("compact", "2").out == "commits up to 2 are gone\n"
    assert command("compact", "1").out == "commits up to 2 are gone\n"
    assert command("compact").out == "commits up to 3 are gone\n"
    assert command("get", "jobs", "a").out == "3\n"


def test_help_and_version_are_no_errors(command: Command) -> None:
    assert "watch" in command("--help").out
    assert '"new-snapshot-to-follow"' in command("watch", "-h").out
    assert command("--version").code == 0
