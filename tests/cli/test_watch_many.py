"""watch of several topics, of a prefix and of all namespaces: its lines say where they are from."""

import signal
from pathlib import Path
from typing import Any

import pytest
from cli.console import Command, put, run, started

from trio_stream.stores import Delete, Put, open_store

pytestmark = pytest.mark.anyio

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


async def commit(*operations: Put | Delete) -> int:
    async with open_store("sqlite:trio-stream.db") as store:
        return await store.commit(operations)


async def fill() -> None:
    await commit(Put("jobs", "a1", 1), Put("users", "a2", 1), Put("users", "ä b", 1))
    await commit(Put("jobs", "a1", 2, "blue"), Put("jobs", "b", 2), Put("third", "a", 2))


@BACKENDS
async def test_lines_of_several_topics_say_the_topic(backend: str) -> None:
    await fill()
    async with started("watch", "jobs", "--topic", "users", "--topic", "jobs", "--backend", backend) as watch:
        lines = await watch.until("end of snapshot")
        assert sorted(lines[:-1]) == [
            "       1  has     jobs  a1  1",
            '       1  has     users  "ä b"  1',
            "       1  has     users  a2  1",
            "       2  has     jobs  b  2",
        ]
        assert lines[-1] == "-- end of snapshot at 2; changes as they are committed:"
        await commit(
            Put("users", "a2", 3), Put("jobs", "a1", 3), Put("third", "a", 3), Delete("users", "ä b")
        )
        assert [await watch.line() for _ in range(3)] == [
            "       3  put     users  a2  3",
            "       3  put     jobs  a1  3",
            '       3  delete  users  "ä b"',
        ]
        ended = await watch.end(signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("-- go on with --from 3@")


@BACKENDS
async def test_lines_of_all_namespaces_say_the_namespace(backend: str) -> None:
    await fill()
    async with started("watch", "jobs", "--all-namespaces", "--backend", backend) as watch:
        assert (await watch.until("end of snapshot"))[:-1] == [
            "       2  has     blue  a1  2",
            "       1  has     default  a1  1",
            "       2  has     default  b  2",
        ]
        await put("c", "3", namespace="a new one")
        assert await watch.line() == '       3  put     "a new one"  c  3'


@BACKENDS
async def test_a_prefix_is_all_that_is_shown(backend: str) -> None:
    await fill()
    async with started("watch", "jobs", "--prefix", "a", "--backend", backend) as watch:
        assert (await watch.until("end of snapshot"))[:-1] == ["       1  has     a1  1"]
        await commit(Put("jobs", "b", 3), Put("jobs", "a", 3), Put("jobs", "a1", 3, "blue"))
        await put("b", "4")
        await commit(Delete("jobs", "a1"))
        assert [await watch.line() for _ in range(2)] == ["       3  put     a  3", "       5  delete  a1"]


async def test_one_key_of_several_topics_and_all_namespaces() -> None:
    await fill()
    ended = await run("watch", "jobs", "a1", "--topic", "users", "--all-namespaces", "--exit-after-snapshot")
    assert sorted(ended.out.splitlines()[:-2]) == [
        "       1  has     jobs  default  a1  1",
        "       2  has     jobs  blue  a1  2",
    ]


@BACKENDS
async def test_json_says_what_is_watched_and_where_each_change_is_from(backend: str) -> None:
    await fill()
    options = ["--topic", "users", "--all-namespaces", "--prefix", "a", "--json", "--backend", backend]
    async with started("watch", "jobs", *options) as watch:
        lines = [await watch.object() for _ in range(4)]
        epoch = lines[-1]["epoch"]
        members = {"topics": ["jobs", "users"], "all_namespaces": True, "prefix": "a", "epoch": epoch}
        assert lines[-1] == {
            "type": "end-of-snapshot",
            "index": 2,
            "cursor": lines[-1]["cursor"],
            "events": [],
            **members,
        }
        found = [(line["type"], line["cursor"], line["index"], line["events"]) for line in lines[:-1]]

        def change(topic: str, namespace: str, key: str, value: Any, kind: str = "put") -> dict[str, Any]:
            return {"type": kind, "topic": topic, "namespace": namespace, "key": key, "value": value}

        assert sorted(found, key=str) == [
            ("snapshot", None, 1, [change("jobs", "default", "a1", 1)]),
            ("snapshot", None, 1, [change("users", "default", "a2", 1)]),
            ("snapshot", None, 2, [change("jobs", "blue", "a1", 2)]),
        ]
        await commit(Delete("users", "a2"), Put("jobs", "b", 3), Put("jobs", "a", 3, "blue"))
        assert lines[-1]["cursor"].startswith(f"2@{epoch}.")
        line = await watch.object()
        assert line["cursor"].startswith(f"3@{epoch}.")
        assert line == {
            "type": "commit",
            "index": 3,
            "cursor": line["cursor"],
            "events": [change("users", "default", "a2", None, "delete"), change("jobs", "blue", "a", 3)],
            **members,
        }


WIDE = ["watch", "jobs", "--topic", "users", "--all-namespaces", "--exit-after-snapshot"]


@BACKENDS
async def test_it_goes_on_from_its_cursor_without_a_snapshot(backend: str) -> None:
    await fill()
    start = (await run(*WIDE)).out.split()[-1]
    await commit(Put("users", "u", 3), Put("jobs", "j", 3, "blue"))
    await commit(Put("third", "x", 4))
    since = await run(*WIDE, "--from", start, "--backend", backend)
    assert since.out.splitlines()[:-1] == [
        "       3  put     users  default  u  3",
        "       3  put     jobs  blue  j  3",
    ]
    after = since.out.split()[-1]
    assert after.startswith("4@")  # also what was about nothing here is passed
    assert (await run(*WIDE, "--from", after)).out == f"-- go on with --from {after}\n"


async def test_a_cursor_that_is_too_old_gets_the_state_of_all_topics_anew() -> None:
    await fill()
    start = (await run(*WIDE)).out.split()[-1]
    await commit(Put("users", "u", 3))
    await run("compact")
    ended = await run(*WIDE, "--from", start)
    lines = ended.out.splitlines()
    assert lines[0] == "-- new snapshot to follow: what was shown so far is out of date"
    assert len(lines) == 9
    assert "       3  has     users  default  u  3" in lines


async def test_a_cursor_with_a_mark_that_the_store_does_not_know_gets_the_state_anew() -> None:
    await fill()
    start = (await run("watch", "jobs", "--exit-after-snapshot")).out.split()[-1]
    ended = await run(
        "watch", "jobs", "--exit-after-snapshot", "--from", f"{start.partition('.')[0]}.a91b", "--json"
    )
    assert ended.objects[0]["type"] == "new-snapshot-to-follow"


@BACKENDS
async def test_a_view_of_several_topics_has_a_column_for_the_topic(backend: str) -> None:
    await fill()
    ended = await run(
        "watch", "users", "--topic", "jobs", "--view", "--exit-after-snapshot", "--backend", backend
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "jobs  a1  1",
        "jobs  b  2",
        "users  a2  1",
        'users  "ä b"  1',
        "-- as of 2",
    ]


async def test_a_view_of_all_namespaces_of_a_prefix() -> None:
    await fill()
    ended = await run("watch", "jobs", "--prefix", "a", "--all-namespaces", "--view", "--exit-after-snapshot")
    assert ended.out.splitlines() == ["blue  a1  2", "default  a1  1", "-- as of 2"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["jobs", "a", "--prefix", "b"], "--prefix does not go with a KEY"),
        (
            ["jobs", "--all-namespaces", "--namespace", "default"],
            "--all-namespaces does not go with --namespace",
        ),
        (["jobs", "--topic", ""], "Invalid value for '--topic': must not be empty"),
        (["jobs", "--from", "1@e.m.n"], "not of the form INDEX@EPOCH"),
        (["jobs", "--from", "1@%zz"], "not of the form INDEX@EPOCH"),
        (["jobs", "--from", f"{'9' * 5000}@e"], "not of the form INDEX@EPOCH"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(command: Command, arguments: list[str], reason: str) -> None:
    result = command("watch", *arguments)
    assert (result.code, result.out) == (2, "")
    assert reason in result.err
    assert len(result.err.splitlines()) == 4


def values(command: Command) -> dict[str, Any]:
    return {each["key"]: each["value"] for each in command("list", "jobs", "--json").objects}


def test_the_log_of_a_prefix_is_about_its_keys_alone(command: Command, folder: Path) -> None:
    for key in ("a1", "a2", "b"):
        command("put", "jobs", key, "0")
    command("--store", "sqlite:other.db", "put", "jobs", "a1", "1")
    log = command(
        "--store", "sqlite:other.db", "watch", "jobs", "--prefix", "a", "--json", "--exit-after-snapshot"
    )
    (folder / "log").write_text(log.out)
    assert command("import", "jobs", "log").code == 0
    assert values(command) == {"a1": 1, "b": 0}


@pytest.mark.parametrize("options", [["--topic", "users"], ["--all-namespaces"]], ids=str)
def test_the_log_of_several_topics_or_namespaces_is_refused(
    command: Command, folder: Path, options: list[str]
) -> None:
    command("put", "jobs", "a", "0")
    log = command("watch", "jobs", *options, "--json", "--exit-after-snapshot")
    (folder / "log").write_text(log.out)
    result = command("--store", "sqlite:copy.db", "import", "jobs", "log")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "Error: log:1: is of several topics or namespaces; what can be imported is the log of one\n"
        "Nothing was committed.\n"
    )
