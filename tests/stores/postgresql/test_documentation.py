"""What the pages about PostgreSQL show runs, and prints what they say."""

import subprocess
import sys
from pathlib import Path

import pytest
from stores.postgresql.server import Server

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
PROGRAMS = [
    *sorted((EXAMPLES / "postgresql").glob("*.py")),
    EXAMPLES / "several_processes.py",  # which runs on any engine; without an argument, on SQLite
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
def test_an_example_runs_and_prints_what_it_says(program: Path, server: Server) -> None:
    command = [sys.executable, "-W", "error", str(program), server.url(server.new_database())]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == program.with_suffix(".out").read_text()
