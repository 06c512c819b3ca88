"""The list that the demonstration works on: lines as getservent(3) reads them, and no others."""

from pathlib import Path

from trio_stream.cli._services import load_services


def test_a_name_that_would_disturb_a_terminal_is_passed_over(folder: Path) -> None:
    (folder / "services").write_text("http 80/tcp www # the web\nbad\x1b[2J 81/tcp\nbad 82/t\x9b\n")
    services = load_services("services")
    assert services.entries == {"http/tcp": {"port": 80, "aliases": ["www"], "status": "passing"}}
