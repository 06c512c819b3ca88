"""The command line; needs the extra `cli`.

It stands on the public names of the library, as any other application does.
"""

from ._app import run as run
