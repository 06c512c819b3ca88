"""The real data of the demonstration: the services that this machine knows, as a catalogue."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import click

from trio_stream.stores import JSON

SYSTEM_LIST: Final = Path("/etc/services")
SHIPPED_LIST: Final = files(__package__).joinpath("services.txt")


class Services(NamedTuple):
    """The list and where it is from."""

    source: str
    entries: dict[str, JSON]
    """By names like "http/tcp": an object of port, aliases and status."""


def load_services(path: str | None) -> Services:
    """The list in `path`; by default that of the system, or a short one that is shipped where there is none."""
    if path is None and not SYSTEM_LIST.exists():
        return Services("a list of its own", dict(_parse(SHIPPED_LIST.read_text("utf-8"))))
    source = path or str(SYSTEM_LIST)
    try:
        text = Path(source).read_text("utf-8", "replace")
    except OSError as error:
        raise click.ClickException(f"{source}: {error.strerror}") from error
    services = Services(source, dict(_parse(text)))
    if not services.entries:
        raise click.ClickException(f"{source}: no line of the form 'http 80/tcp www'")
    return services


def _parse(text: str) -> Iterator[tuple[str, JSON]]:
    """As getservent(3) does, which passes over lines that are not of the form "http 80/tcp www # remark"."""
    for line in text.splitlines():
        match line.partition("#")[0].split():
            case [name, where, *aliases]:
                port, _, protocol = where.partition("/")
                key = f"{name}/{protocol}"
                if port.isascii() and port.isdecimal() and protocol and key.isprintable():
                    yield key, {"port": int(port), "aliases": aliases, "status": "passing"}
