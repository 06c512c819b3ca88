"""The store that --store names, and what is said where there is none."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click

from trio_stream.stores import Store, open_store


def opening_of(url: str, *, makes_store: bool = False) -> AbstractAsyncContextManager[Store]:
    """What `open_store` returns; an error if there is no such store and this command is not one that makes it."""
    try:
        opening = open_store(url)
    except ValueError as error:
        raise click.UsageError(f"Invalid value for '--store': {error}") from None
    scheme, _, path = url.partition(":")
    if not makes_store and scheme == "sqlite":
        path = path.removeprefix("//")
        if not Path(path).exists():
            raise click.ClickException(
                f"there is no store {Path(path).absolute()}; put, import and watch make one"
            )
    return opening
