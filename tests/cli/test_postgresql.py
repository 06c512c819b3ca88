"""The command line with a store in PostgreSQL, whose URL has a password."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.console import Command, run
from stores.postgresql.server import PASSWORD, QUOTED_PASSWORD, Server, missing

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    lacking = missing()
    if lacking is not None:
        pytest.skip(f"a PostgreSQL server of one's own needs {lacking}")
    server = Server()
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """In the environment, as it should be."""
    url = server.tcp_url(server.new_database())
    monkeypatch.setenv("TRIO_STREAM_STORE", url)
    return url


def secrets_in(text: str) -> list[str]:
    return [secret for secret in (PASSWORD, QUOTED_PASSWORD) if secret in text]


def test_what_is_put_is_there(url: str, command: Command) -> None:
    assert command("put", "jobs", "build", '{"state": "queued"}').out == "1\n"
    assert command("put", "jobs", "build", '{"state": "done"}', "--expect", "1", "--final").out == "2\n"
    assert command("put", "jobs", "build", "0").code == 1
    assert command("list", "jobs").out == '       2  build  {"state": "done"}\n'
    assert command("txn", stdin=b'{"topic": "jobs", "key": "a", "value": 1}').out == "3\n"
    assert command("topics").out == "jobs\n"
    assert command("get", "jobs", "a").out == "1\n"
    assert command("delete", "jobs", "a").out == "4\n"
    assert command("revoke", stdin=b"token\n").out == "5\n"
    assert command("compact", "3").out == "commits up to 3 are gone\n"
    shown = command("watch", "jobs", "--exit-after-snapshot")
    assert shown.out.startswith('       2  has     build  {"state": "done"}\n-- end of snapshot at 5;')
    assert command("wait", "jobs", "a", "--gone").code == 0


def test_records_are_imported(url: str, command: Command, folder: Path) -> None:
    (folder / "jobs.csv").write_text("name,state\na,done\nb,queued\n")
    assert command("import", "jobs", "jobs.csv", "--key", "name").code == 0
    assert command("list", "jobs").out.count("\n") == 2


def test_status_says_which_engine_it_is_and_not_the_password(url: str, command: Command) -> None:
    command("put", "jobs", "a", "0")
    (fields,) = command("status", "--json").objects
    assert (fields["engine"], fields["head"], fields["commits"]) == ("postgresql", 1, 1)
    assert fields["version"][:2].isdigit()
    assert fields["bytes"] > 0
    assert fields["place"].startswith("postgresql://postgres@127.0.0.1:")
    text = command("status").out
    assert text.startswith(f"engine   postgresql {fields['version']}\n")
    assert secrets_in(text + fields["place"]) == []


@pytest.mark.parametrize("arguments", [["backup", "copy.db"], ["restore", "copy.db"]])
def test_what_is_for_a_file_is_wrong_usage(
    url: str, command: Command, folder: Path, arguments: list[str]
) -> None:
    (folder / "copy.db").touch()
    refused = command(*arguments)
    assert refused.code == 2
    assert "this is for a store in a file; the one of --store is in postgresql" in refused.err
    assert secrets_in(refused.err) == []


def test_no_server_is_an_error_without_the_password(
    server: Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_STREAM_STORE", server.tcp_url(port=1))
    for arguments in (["status"], ["put", "jobs", "a", "0"], ["watch", "jobs"]):
        failed = command(*arguments)
        assert (failed.code, failed.out) == (1, "")
        assert "127.0.0.1:1" in failed.err
        assert secrets_in(failed.err) == []


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_the_demonstration_agrees(url: str, folder: Path, backend: str) -> None:
    (folder / "services").write_text("http 80/tcp\nssh 22/tcp\ndomain 53/udp\n")
    ended = await run("--store", url, "demo", "--seconds", "1", "--input", "services", "--backend", backend)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "All agree."), ended.err
    assert secrets_in(ended.out + ended.err) == []
