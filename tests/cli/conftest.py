"""A folder of its own for each test, and the command line in this process."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.console import Command, Result

from trio_stream.__main__ import main


@contextmanager
def standard_input(data: bytes) -> Iterator[None]:
    """The descriptor gives these bytes inside."""
    kept = os.dup(0)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        os.dup2(file.fileno(), 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.fixture
def anyio_backend() -> str:
    """What the tests run on; what the command runs on is up to its --backend."""
    return "trio"


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """What is started by a script in the background ignores Ctrl-C, and so would the commands under test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIO_STREAM_STORE", raising=False)
    return tmp_path


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs one command in this process, which is faster."""

    def call(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["trio-stream", *arguments])
        with pytest.raises(SystemExit) as ended, standard_input(stdin):
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, out, err)

    return call
