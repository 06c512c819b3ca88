"""What the pages about PostgreSQL show runs, and prints what they say."""

import subprocess
import sys
from pathlib import Path

import pytest
from stores.postgresql.server import Server

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples" / "postgresql"


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda program: str(program.name))
def test_an_example_runs_and_prints_what_it_says(program: Path, server: Server) -> None:
    command = [sys.executable, "-W", "error", str(program), server.url(server.new_database())]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == program.with_suffix(".out").read_text()
