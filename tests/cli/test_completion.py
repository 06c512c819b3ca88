"""Completion: the scripts for the shells, and what they are answered."""

import os
import subprocess
from pathlib import Path

import pytest
from cli.console import PROGRAM


def complete(shell: str, **environment: str) -> str:
    ended = subprocess.run(
        PROGRAM,
        env={**os.environ, "_TRIO_STREAM_COMPLETE": shell, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        ("bash_source", "complete -o nosort -F _trio_stream_completion trio-stream"),
        ("zsh_source", "#compdef trio-stream"),
        ("fish_source", "complete --no-files --command trio-stream"),
    ],
)
def test_the_script_for_a_shell_comes_out(shell: str, text: str) -> None:
    if shell == "bash_source" and not Path("/bin/bash").exists():
        pytest.skip("missing: bash, which click asks for its version")
    assert text in complete(shell)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trio-stream wa", {"wait", "watch"}),
        ("trio-stream import --f", {"--format"}),
        ("trio-stream import --format ", {"ndjson", "csv", "json"}),
        ("trio-stream demo", {"demo"}),
    ],
)
def test_commands_options_and_choices_are_completed(line: str, expected: set[str]) -> None:
    words = line.split(" ")
    answer = complete("bash_complete", COMP_WORDS=line, COMP_CWORD=f"{len(words) - 1}")
    assert {each.partition(",")[2] for each in answer.splitlines()} == expected
