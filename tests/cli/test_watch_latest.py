"""watch --latest: who reads the output too slowly gets the newest of each key, and so the right state."""

import signal
from collections.abc import Sequence
from typing import Any

import pytest
from cli.console import Command, put, run, started

from trio_stream.stores import Delete, Put, open_store

pytestmark = pytest.mark.anyio

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


async def start_of(*options: str) -> str:
    """The cursor of the newest commit."""
    return (await run("watch", "jobs", "--exit-after-snapshot", *options)).out.split()[-1]


async def commit(*commits: Sequence[Put | Delete]) -> None:
    async with open_store("sqlite:trio-stream.db") as store:
        for operations in commits:
            await store.commit(operations)


@BACKENDS
async def test_who_is_behind_gets_the_newest_of_each_key(backend: str) -> None:
    await put("a", "0")
    start = await start_of()
    await commit([Put("jobs", "a", 1), Put("jobs", "b", 1)], [Put("jobs", "a", 2)], [Delete("jobs", "b")])
    options = ["--from", start, "--exit-after-snapshot", "--backend", backend]
    shown = await run("watch", "jobs", "--latest", *options)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[:-1] == ["       3  put     a  2", "       4  delete  b"]
    assert shown.out.splitlines()[-1].startswith("-- go on with --from 4@")
    every = await run("watch", "jobs", *options)
    assert len(every.out.splitlines()) == 5


async def test_json_says_that_a_line_stands_for_several_commits() -> None:
    await put("a", "0")
    start = await start_of()
    await commit([Put("jobs", "a", 1)], [Put("jobs", "b", 1)], [Put("jobs", "a", 2)])
    shown = await run("watch", "jobs", "--latest", "--json", "--from", start, "--exit-after-snapshot")
    (line,) = shown.objects
    assert (line["type"], line["index"], line["cursor"].partition("@")[0]) == ("latest", 4, "4")
    assert [(each["type"], each["key"], each["value"]) for each in line["events"]] == [
        ("put", "b", 1),
        ("put", "a", 2),
    ]
    assert shown.err == f"-- go on with --from {line['cursor']}\n"


async def test_of_several_topics_and_namespaces_each_key_is_one() -> None:
    await put("a", "0")
    everywhere = ["--topic", "users", "--all-namespaces"]
    start = await start_of(*everywhere)
    await commit(
        [Put("jobs", "a", 1)],
        [Put("users", "a", 1), Put("jobs", "a", 1, "blue")],
        [Put("jobs", "a", 2)],
        [Put("users", "a", 2)],
    )
    shown = await run("watch", "jobs", *everywhere, "--latest", "--from", start, "--exit-after-snapshot")
    assert shown.out.splitlines()[:-1] == [
        "       3  put     jobs  blue  a  1",
        "       4  put     jobs  default  a  2",
        "       5  put     users  default  a  2",
    ]


async def test_who_keeps_up_gets_every_commit() -> None:
    await put("a", "0")
    async with started("watch", "jobs", "--latest") as watch:
        await watch.until("end of snapshot")
        for value in range(3):
            await put("a", f"{value}")
            assert await watch.line() == f"       {value + 2}  put     a  {value}"
        assert (await watch.end(signal.SIGINT)).code == 0


@BACKENDS
async def test_who_does_not_read_for_long_has_the_newest_state_after_a_few_lines(backend: str) -> None:
    """D21: without it there would be as many lines as commits, or a new snapshot."""
    commits = 400
    await put("a", '"start"')
    async with started("watch", "jobs", "--latest", "--json", "--backend", backend) as watch:
        await watch.object()
        await watch.object()
        long = "x" * 20_000  # so that the pipe is full at once
        await commit(*([Put("jobs", f"{number % 3}", [number, long])] for number in range(commits)))
        lines = [await watch.object()]
        while lines[-1]["index"] <= commits:
            lines.append(await watch.object())
    assert len(lines) < commits / 2
    assert any(line["type"] == "latest" for line in lines)
    state: dict[str, Any] = {}
    for line in lines:
        state.update({each["key"]: each["value"][0] for each in line["events"]})
    assert state == {f"{number % 3}": number for number in range(commits - 3, commits)}


async def test_what_it_writes_can_be_imported(command: Command) -> None:
    await put("a", "0")
    start = await start_of()
    await commit([Put("jobs", "a", 1)], [Put("jobs", "b", 1)], [Put("jobs", "a", 2)], [Delete("jobs", "b")])
    log = await run("watch", "jobs", "--latest", "--json", "--from", start, "--exit-after-snapshot")
    await run("--store", "sqlite:copy.db", "put", "jobs", "b", "9")
    imported = await run("--store", "sqlite:copy.db", "import", "jobs", "-", stdin=log.out.encode())
    assert imported.code == 0
    assert (await run("--store", "sqlite:copy.db", "list", "jobs")).out == "       2  a  2\n"


async def test_a_table_has_no_latest(command: Command) -> None:
    ended = command("watch", "jobs", "--view", "--latest")
    assert ended.code == 2
    assert "--view goes with none of --from, --latest and --json" in ended.err
