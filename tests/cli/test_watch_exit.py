"""watch --exit-after-snapshot: the state, or what has been committed since a cursor, and no more."""

import pytest
from cli.console import Command, put, run

pytestmark = pytest.mark.anyio

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@BACKENDS
async def test_it_ends_when_the_state_is_written(backend: str) -> None:
    await put("a", "1")
    await put("b", "2")
    ended = await run("watch", "jobs", "--exit-after-snapshot", "--backend", backend)
    assert (ended.code, ended.err) == (0, "")
    *state, cursor = ended.out.splitlines()
    assert state == [
        "       1  has     a  1",
        "       2  has     b  2",
        "-- end of snapshot at 2; changes as they are committed:",
    ]
    assert cursor.startswith("-- go on with --from 2@")


@BACKENDS
async def test_an_empty_topic_has_a_state_too(backend: str) -> None:
    ended = await run("watch", "jobs", "--exit-after-snapshot", "--json", "--backend", backend)
    assert [each["type"] for each in ended.objects] == ["end-of-snapshot"]
    assert ended.err.startswith("-- go on with --from 0@")


async def test_a_long_state_is_written_to_its_end(command: Command) -> None:
    lines = b"".join(b'{"key": "%d", "value": 0}\n' % n for n in range(5000))
    await run("import", "jobs", "-", stdin=lines)
    ended = await run("watch", "jobs", "--exit-after-snapshot")
    assert ended.out.count("  has     ") == 5000
    assert ended.out.count("-- ") == 2


@BACKENDS
async def test_from_a_cursor_it_writes_what_has_been_committed_since(backend: str) -> None:
    await put("a", "1")
    start = (await run("watch", "jobs", "--exit-after-snapshot")).out.split()[-1]
    options = ["--exit-after-snapshot", "--backend", backend]
    nothing = await run("watch", "jobs", "--from", start, *options)
    assert (nothing.code, nothing.out) == (0, f"-- go on with --from {start}\n")
    await put("a", "2")
    await put("b", "3")
    since = await run("watch", "jobs", "--from", start, *options)
    assert since.out.splitlines()[:-1] == ["       2  put     a  2", "       3  put     b  3"]
    again = await run("watch", "jobs", "--from", since.out.split()[-1], *options)
    assert again.out.count("\n") == 1


async def test_from_a_cursor_that_is_too_old_it_writes_the_state() -> None:
    await put("a", "1")
    start = (await run("watch", "jobs", "--exit-after-snapshot")).out.split()[-1]
    await put("b", "2")
    await run("compact")
    ended = await run("watch", "jobs", "--from", start, "--exit-after-snapshot", "--json")
    assert [each["type"] for each in ended.objects] == [
        "new-snapshot-to-follow",
        "snapshot",
        "snapshot",
        "end-of-snapshot",
    ]


@BACKENDS
async def test_the_view_is_written_once(backend: str) -> None:
    await put("b", "1")
    await put("a", '{"x": 1}')
    ended = await run("watch", "jobs", "--view", "--exit-after-snapshot", "--backend", backend)
    assert (ended.code, ended.out, ended.err) == (0, 'a  {"x": 1}\nb  1\n-- as of 2\n', "")


async def test_a_line_about_one_key_names_it() -> None:
    await put("a", "1")
    ended = await run("watch", "jobs", "a", "--exit-after-snapshot", "--json")
    assert [each["key"] for each in ended.objects] == ["a", "a"]
