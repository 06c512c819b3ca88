"""The commands that change a few keys: their arguments and their help."""

import click

from trio_stream.stores import Change, Delete, Name, Put, Revoke

from . import _arguments as arguments
from ._lines import json_line
from ._opening import opening_of
from ._output import Output
from ._run import run_async
from ._tokens import read_tokens
from ._transaction import Transaction, read_transaction
from ._value import read_value


@click.command()
@arguments.topic
@arguments.key
@click.argument("value", metavar="VALUE")
@click.option("--raw", "is_raw", is_flag=True, help="VALUE is a text, taken as it is, and not JSON.")
@click.option(
    "--final",
    "is_final",
    is_flag=True,
    help="It is the last value of KEY: who watches just that is done with it.",
)
@arguments.namespace
@arguments.expect
@arguments.as_json
@click.pass_obj
def put(
    url: str,
    *,
    topic: str,
    key: str,
    value: str,
    is_raw: bool,
    is_final: bool,
    namespace: str,
    expect: int | None,
    as_json: bool,
) -> None:
    """Set KEY of TOPIC to VALUE, which is JSON.

    "-" reads VALUE from standard input, "@FILE" from a file. A negative number comes after "--":
    `put jobs retries -- -1`.

    With --raw VALUE is a text; one that begins with "@" comes from standard input, or as JSON: '"@home"'.

    After --final KEY cannot be put again; `delete` frees it.

    Prints the index of the commit.
    """
    operation = Put(topic, key, read_value(value, is_raw=is_raw), namespace, final=is_final)
    _commit(url, _single(operation, expect), makes_store=True, as_json=as_json)


@click.command()
@arguments.topic
@arguments.key
@arguments.namespace
@arguments.expect
@arguments.as_json
@click.pass_obj
def delete(url: str, *, topic: str, key: str, namespace: str, expect: int | None, as_json: bool) -> None:
    """Remove KEY of TOPIC.

    Prints the index of the commit. It is no error if there is no such key; `--expect` makes it one.
    """
    operation = Delete(topic, key, namespace)
    _commit(url, _single(operation, expect), makes_store=False, as_json=as_json)


@click.command()
@click.argument("file", metavar="[FILE]", default="-")
@click.option(
    "--topic", callback=arguments.check_optional_name, help="That of the operations that name none."
)
@click.option(
    "--namespace",
    default="default",
    show_default=True,
    callback=arguments.check_name,
    help="That of the operations that name none.",
)
@arguments.as_json
@click.pass_obj
def txn(url: str, *, file: str, topic: str | None, namespace: str, as_json: bool) -> None:
    """Do several operations in one commit, all or none.

    FILE has them as NDJSON or as a JSON array; "-", the default, is standard input:

    \b
      {"type": "put", "topic": ..., "key": ..., "value": ..., "expect": INDEX}
      {"type": "delete", "topic": ..., "key": ...}

    "final": true makes it the last value of its key.
    "type" is "put" by default, so that lines of `list --json` do; their "index" is ignored.
    "expect" is the index at which the key must have been put last, 0 if it must not exist. If one is not so nothing
    is changed, and the exit code is 1. "namespace" may be there as well.

    Prints the index of the commit.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    transaction = read_transaction(file, topic=topic, namespace=namespace)
    _commit(url, transaction, makes_store=True, as_json=as_json)


def _single(operation: Change, expect: int | None) -> Transaction:
    return Transaction([operation], {} if expect is None else {Name(*operation.name): expect})


def _commit(url: str, transaction: Transaction, *, makes_store: bool, as_json: bool) -> None:
    async def main() -> None:
        async with opening_of(url, makes_store=makes_store) as store:
            index = await store.commit(transaction.operations, expect=transaction.expect)
        await Output().write(json_line({"index": index}) if as_json else f"{index}\n")

    run_async(main)


@click.command()
@click.argument("file", metavar="[FILE]", default="-")
@arguments.as_json
@click.pass_obj
def revoke(url: str, *, file: str, as_json: bool) -> None:
    """Close every subscription made with a token, in all processes of the store.

    FILE has the tokens, one in a line; "-", the default, is standard input: on a command line anybody could read them.
    Cursors that were reached with one of them are stale from then on.

    Prints the index of the commit.
    """
    tokens = read_tokens(file)

    async def main() -> None:
        async with opening_of(url) as store:
            index = await store.commit([Revoke(token) for token in tokens])
        await Output().write(json_line({"index": index}) if as_json else f"{index}\n")

    run_async(main)


@click.command()
@click.argument("index", required=False, type=click.IntRange(min=0))
@click.pass_obj
def compact(url: str, *, index: int | None) -> None:
    """Forget old commits.

    Those up to INDEX, or all there are; the state stays. Who wants to go on from an older index gets a new snapshot.
    """

    async def main() -> None:
        async with opening_of(url) as store:
            head = await store.head()
            upto = head.index if index is None else index
            if upto > head.index:
                raise click.ClickException(f"{upto} is not reached yet: the newest index is {head.index}")
            await store.compact(upto)
        await Output().write(f"commits up to {max(upto, head.floor)} are gone\n")

    run_async(main)
