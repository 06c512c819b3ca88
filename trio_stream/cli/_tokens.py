"""Reading the tokens that are to be revoked; none of them is in any message."""

from collections.abc import Sequence

import click

from ._input import name_of, open_input
from ._text import RecordError, TextReader


def read_tokens(path: str) -> Sequence[str]:
    """The lines of the file, without those that are empty; a `click.ClickException` if there is none."""
    name = name_of(path)
    try:
        with open_input(path) as file:
            tokens = [token for line in TextReader(file).lines() if (token := line.rstrip("\r\n"))]
    except RecordError as error:
        raise click.ClickException(f"{name}:{error.line}: {error.reason}") from error
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror}") from error
    if not tokens:
        raise click.ClickException(f"{name}: no tokens")
    return tokens
