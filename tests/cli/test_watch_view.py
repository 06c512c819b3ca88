"""watch --view: the current state as a table."""

import os
import pty
import signal
import subprocess

import anyio
import pytest
from cli.console import PATIENCE, PROGRAM, put, run, started

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_without_a_terminal_the_last_state_is_written_in_the_end(
    backend: str, signum: signal.Signals
) -> None:
    await put("web", '{"port": 80}')
    await put("db", "1")
    await put("a b", "2")
    await run("delete", "jobs", "db")
    async with started("watch", "jobs", "--view", "--backend", backend) as watch:
        assert "following" in await watch.warning()
        ended = await watch.end(signum)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == '"a b"  2\nweb  {"port": 80}\n-- as of 4\n'


async def test_on_a_terminal_the_table_is_drawn_anew_at_each_change() -> None:
    await put("web", '"first"')
    terminal, end = pty.openpty()
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [*PROGRAM, "watch", "jobs", "--view"], stdin=end, stdout=end, env={**os.environ, "COLUMNS": "80"}
    )
    os.close(end)
    seen = ""

    async def until(text: str) -> None:
        nonlocal seen
        with anyio.fail_after(PATIENCE):
            while text not in seen:
                await anyio.wait_readable(terminal)
                seen += os.read(terminal, 65536).decode()

    try:
        await until('"first"')
        await put("web", '"second"')
        await until('"second"')
        await until("as of 2")
        process.send_signal(signal.SIGINT)
        assert await anyio.to_thread.run_sync(process.wait, PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


@pytest.mark.parametrize("option", [("--json",), ("--from", "1@a")])
async def test_it_goes_with_nothing_that_is_about_events(option: tuple[str, ...]) -> None:
    ended = await run("watch", "jobs", "--view", *option)
    assert ended.code == 2
    assert "--view goes with none of" in ended.err
