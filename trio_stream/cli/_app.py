"""The program: its commands, and what it exits with."""

from typing import Final

import click

from trio_stream.stores import StoreError

from ._changing import compact, delete, put, revoke, txn
from ._copying import backup, restore
from ._following import demo, demo_writer, wait, watch
from ._importing import import_
from ._looking import get, list_, status, topics
from ._output import ReaderLeftError, guarded_output
from ._run import SignalError

_STORE: Final = "sqlite:trio-stream.db"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--store",
    "url",
    metavar="URL",
    default=_STORE,
    show_default=True,
    envvar="TRIO_STREAM_STORE",
    show_envvar=True,
    help="The store: sqlite:PATH or postgresql://... `put`, `txn`, `import`, `watch` and `wait` make it if there is"
    " none.",
)
@click.version_option(package_name="trio-stream")
@click.pass_context
def app(context: click.Context, url: str) -> None:
    """Put JSON values into a store, and watch them change.

    \b
      trio-stream put jobs build '{"state": "running"}'
      trio-stream watch jobs

    A store holds topics; a topic holds keys, in namespaces; each commit has an index.
    Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    context.obj = url


_COMMANDS: Final = (
    put,
    delete,
    txn,
    revoke,
    import_,
    get,
    list_,
    topics,
    watch,
    wait,
    status,
    compact,
    backup,
    restore,
    demo,
    demo_writer,
)

for command in _COMMANDS:
    app.add_command(command)


def run() -> int:
    """Does what the command line asks for; returns the exit code of the process."""
    try:
        with guarded_output():
            return app.main(prog_name="trio-stream", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except StoreError as error:
        click.ClickException(str(error)).show()
        return 1
    except SignalError as interrupted:
        return 128 + interrupted.signum
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ReaderLeftError:
        return 0
