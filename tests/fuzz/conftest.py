"""The command line in this process, as in its own tests."""

from cli.conftest import command, folder

__all__ = ["command", "folder"]
