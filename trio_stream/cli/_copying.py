"""The commands `backup` and `restore`: their arguments and their help."""

import click

from trio_stream.stores import Head
from trio_stream.stores.sqlite import backup_sqlite_store, restore_sqlite_store

from . import _arguments as arguments
from ._lines import json_line, key_text
from ._opening import check_store_exists, file_of
from ._output import Output
from ._run import run_async


@click.command()
@click.argument("file", metavar="FILE", callback=arguments.check_path)
@click.option("--force", is_flag=True, help="Take the place of a FILE that is there.")
@arguments.as_json
@click.pass_obj
def backup(url: str, *, file: str, force: bool, as_json: bool) -> None:
    """Copy the store to FILE, while others read and write it.

    FILE is the store as it was at one commit, whose index is printed. It appears when it is complete, and can be
    opened as a store itself. With --json: {"index", "floor", "epoch"}.
    """

    async def main() -> None:
        path = check_store_exists(url)
        head = await backup_sqlite_store(str(path), file, overwrite=force)
        await Output().write(
            _head_line(head) if as_json else f"{key_text(file)} has the store as of {head.index}\n"
        )

    run_async(main)


@click.command()
@click.argument("file", metavar="FILE", callback=arguments.check_path)
@arguments.as_json
@click.pass_obj
def restore(url: str, *, file: str, as_json: bool) -> None:
    """Put the backup FILE in the place of the store, while others use it.

    Commits that were made after the backup are lost. The store gets a new epoch in the same step: everybody who
    watches it gets a new snapshot, and older cursors are stale. It makes the store if there is none.
    With --json: {"index", "floor", "epoch"}.
    """

    async def main() -> None:
        head = await restore_sqlite_store(file, str(file_of(url)))
        text = f"the store is as of {head.index}, with epoch {head.epoch}\n"
        await Output().write(_head_line(head) if as_json else text)

    run_async(main)


def _head_line(head: Head) -> str:
    return json_line({"index": head.index, "floor": head.floor, "epoch": head.epoch})
