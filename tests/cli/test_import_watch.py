"""import of what `watch --json` has written: the state that it showed."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli.console import Command, put, run, started


def values(command: Command, topic: str = "jobs", *options: str) -> dict[str, object]:
    return {each["key"]: each["value"] for each in command("list", topic, "--json", *options).objects}


def line(kind: str, *events: tuple[Any, ...], **members: object) -> str:
    made = [
        {"type": "put", "namespace": "default", "key": event[0], "value": event[1]}
        if len(event) == 2
        else {"type": "delete", "namespace": "default", "key": event[0], "value": None}
        for event in events
    ]
    return json.dumps({"type": kind, "index": 1, "epoch": "e", "cursor": None, "events": made, **members})


def imported(command: Command, folder: Path, *lines: str, batch: int = 1000) -> str:
    (folder / "log").write_text("".join(f"{each}\n" for each in lines))
    result = command("import", "jobs", "log", "--batch", str(batch))
    assert (result.code, result.err) == (0, "")
    return result.out


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_puts_and_deletes_are_done_in_their_order(command: Command, folder: Path, batch: int) -> None:
    imported(
        command,
        folder,
        line("snapshot", ("a", 1), ("b", 1)),
        line("snapshot", ("c", 1)),
        line("end-of-snapshot"),
        line("commit", ("a",), ("d", 2)),
        line("commit", ("a", 3), ("b",)),
        batch=batch,
    )
    assert values(command) == {"a": 3, "c": 1, "d": 2}


def test_the_lines_of_a_commit_stay_together(command: Command, folder: Path) -> None:
    out = imported(
        command,
        folder,
        line("commit", ("a", 1), ("b", 1), ("c", 1)),
        line("commit", ("a",), ("b", 2)),
        line("commit", ("d", 1)),
        batch=2,
    )
    assert out == "committed 6 records in 3 commits, 3 keys, up to index 3\n"


@pytest.mark.parametrize("batch", [1, 1000])
def test_what_is_not_in_a_snapshot_is_gone(command: Command, folder: Path, batch: int) -> None:
    command("put", "jobs", "before", "0")
    command("put", "jobs", "a", "0")
    command("put", "jobs", "before", "0", "--namespace", "other")
    command("put", "another", "before", "0")
    imported(
        command,
        folder,
        line("snapshot", ("a", 1), ("b", 1)),
        line("end-of-snapshot"),
        line("commit", ("c", 1)),
        line("new-snapshot-to-follow"),
        line("snapshot", ("b", 2)),
        line("snapshot", ("d", 2)),
        line("end-of-snapshot"),
        line("commit", ("e", 3)),
        batch=batch,
    )
    assert values(command) == {"b": 2, "d": 2, "e": 3}
    assert values(command, "jobs", "--namespace", "other") == {"before": 0}
    assert values(command, "another") == {"before": 0}


def test_an_empty_snapshot_empties_the_topic(command: Command, folder: Path) -> None:
    command("put", "jobs", "before", "0")
    out = imported(command, folder, line("end-of-snapshot"))
    assert values(command) == {}
    assert out == "committed 0 records in 1 commit, 0 keys, up to index 2\n"


def test_a_log_that_goes_on_from_a_cursor_removes_nothing_else(command: Command, folder: Path) -> None:
    command("put", "jobs", "before", "0")
    imported(command, folder, line("commit", ("a", 1)), line("commit", ("b", 1)))
    assert values(command) == {"a": 1, "b": 1, "before": 0}


def test_a_snapshot_that_is_torn_removes_nothing(command: Command, folder: Path) -> None:
    command("put", "jobs", "before", "0")
    imported(
        command,
        folder,
        line("snapshot", ("a", 1)),
        line("new-snapshot-to-follow"),
        line("snapshot", ("b", 1)),
    )
    assert values(command) == {"a": 1, "b": 1, "before": 0}


def test_a_snapshot_that_began_anew_counts_from_there(command: Command, folder: Path) -> None:
    imported(
        command,
        folder,
        line("snapshot", ("a", 1)),
        line("new-snapshot-to-follow"),
        line("snapshot", ("b", 1), ("c", 1), ("b",)),
        line("end-of-snapshot"),
    )
    assert values(command) == {"c": 1}


def test_the_log_of_one_key_is_about_that_key_alone(command: Command, folder: Path) -> None:
    command("put", "jobs", "before", "0")
    command("put", "jobs", "a", "0")
    imported(command, folder, line("snapshot", ("a", 1), key="a"), line("end-of-snapshot", key="a"))
    assert values(command) == {"a": 1, "before": 0}
    imported(command, folder, line("end-of-snapshot", key="a"))
    assert values(command) == {"before": 0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"type": "other", "events": []}', "has events, but is no line of `watch --json`"),
        ('{"events": []}', "has events, but is no line of `watch --json`"),
        ('{"type": [], "events": []}', "has events, but is no line of `watch --json`"),
        ('{"type": "commit", "key": 5, "events": []}', "has events, but is no line of `watch --json`"),
        ('{"type": "commit", "events": 5}', "an event of it is neither a put nor a delete"),
        ('{"type": "commit", "events": [{"type": "put", "key": "a"}]}', "an event of it is neither"),
        ('{"type": "commit", "events": [{"type": "put", "key": "", "value": 1}]}', "a key must not be empty"),
        ('{"type": "commit", "events": [{"type": "put", "key": "a", "value": 1e999}]}', "Out of range float"),
    ],
    ids=range(8),
)
def test_a_line_that_watch_does_not_write_is_named(
    command: Command, folder: Path, text: str, reason: str
) -> None:
    (folder / "log").write_text(f"{line('commit', ('a', 1))}\n{text}\n")
    result = command("import", "jobs", "log")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: log:2: {reason}")
    assert values(command) == {}


def test_a_record_of_ones_own_may_have_events(command: Command, folder: Path) -> None:
    record = {"id": "a", "type": "other", "events": [1]}
    (folder / "x").write_text(f"{json.dumps(record)}\n")
    assert command("import", "jobs", "x", "--key", "id").code == 0
    (folder / "x").write_text('{"key": "b", "value": 1, "events": []}\n')
    assert command("import", "jobs", "x").code == 0
    assert values(command) == {"a": record, "b": 1}


@pytest.mark.anyio
@pytest.mark.parametrize("key", [[], ["a"]], ids=["all keys", "one key"])
async def test_the_output_of_watch_gives_the_state_that_it_showed(folder: Path, key: list[str]) -> None:
    await put("a", "1")
    await put("b", "1")
    async with started("watch", "jobs", *key, "--json") as watch:
        lines = await watch.until("end-of-snapshot")
        for command in ["put jobs c [1]", "delete jobs b", "put jobs a 2"]:
            await run(*command.split())
        lines += await watch.until('"key":"a"')
        ended = await watch.end(signal.SIGINT)
    (folder / "log").write_text("".join(f"{each}\n" for each in lines) + ended.out)
    assert (await run("--store", "sqlite:copy.db", "import", "jobs", "log")).code == 0
    copied = (await run("--store", "sqlite:copy.db", "list", "jobs", "--json")).objects
    expected = {"a": 2} if key else {"a": 2, "c": [1]}
    assert {each["key"]: each["value"] for each in copied} == expected
