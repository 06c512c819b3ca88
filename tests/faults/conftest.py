"""A store on a file of its own, as in the tests of stores."""

from stores.conftest import path, store

__all__ = ["path", "store"]
