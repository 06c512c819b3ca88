"""put --final, "final" of txn, and revoke."""

import json
from pathlib import Path

import anyio
import pytest
from cli.console import Command

from trio_stream.stores import open_store, token_digest


def test_a_final_value_cannot_be_replaced_and_a_delete_frees_it(command: Command) -> None:
    assert command("put", "runs", "1", '"done"', "--final").out == "1\n"
    refused = command("put", "runs", "1", '"again"')
    assert (refused.code, refused.out) == (1, "")
    assert "finished since commit 1" in refused.err
    assert command("delete", "runs", "1").code == 0
    assert command("put", "runs", "1", '"again"').out == "3\n"


def test_a_transaction_says_which_values_are_final(command: Command) -> None:
    lines = [
        {"topic": "runs", "key": "1", "value": "done", "final": True},
        {"topic": "runs", "key": "2", "value": "running", "final": False},
    ]
    assert command("txn", stdin="\n".join(map(json.dumps, lines)).encode()).code == 0
    assert command("put", "runs", "1", '"again"').code == 1
    assert command("put", "runs", "2", '"done"').code == 0


@pytest.mark.parametrize(
    "line",
    [
        {"topic": "runs", "key": "1", "value": 0, "final": 1},
        {"topic": "runs", "key": "1", "type": "delete", "final": True},
    ],
)
def test_a_transaction_with_a_wrong_final_is_refused(command: Command, line: dict[str, object]) -> None:
    result = command("txn", stdin=json.dumps(line).encode())
    assert (result.code, result.out) == (1, "")
    assert "final" in result.err


def test_revoke_puts_the_digests_of_the_tokens_into_one_commit(command: Command, folder: Path) -> None:
    """D9: every process of the store closes what was opened with them; the store never has the tokens."""
    command("put", "jobs", "a", "0")
    assert command("revoke", stdin=b"secret-one\nsecret-two\r\n\n").out == "2\n"

    async def look() -> set[str]:
        async with open_store("sqlite:trio-stream.db") as store:
            revocations = await store.revocations()
            async with store.changes(1) as commits:
                commit = await anext(commits)
        digests = {token_digest(token, revocations.salt) for token in ("secret-one", "secret-two")}
        assert set(commit.revoked) == digests
        return digests - revocations.newest.keys()

    assert anyio.run(look, backend="trio") == set()
    assert not any(b"secret-one" in path.read_bytes() for path in folder.iterdir())


def test_revoke_reads_a_file_and_refuses_one_without_tokens(command: Command, folder: Path) -> None:
    command("put", "jobs", "a", "0")
    (folder / "tokens").write_text("one\n")
    (folder / "none").write_text("\n\n")
    assert command("revoke", "tokens", "--json").objects == [{"index": 2}]
    refused = command("revoke", "none")
    assert (refused.code, refused.err) == (1, "Error: none: no tokens\n")
    assert command("revoke", "missing").code == 1
