"""A store whose snapshots may be of prefixes and of all namespaces: what the feed of a publisher offers if it can."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class WideStore(Protocol):
    """Says whether `Store.snapshot` knows what a request with `prefix`, or with `ALL`, asks for.

    A store that does not say so is asked for one key, or all keys, of one namespace and partition only.
    """

    @property
    def is_wide(self) -> bool:
        """Whether it does."""
        ...
