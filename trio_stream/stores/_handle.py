"""The publisher that a store feeds: what readers use of it works, and what only the feed may do is refused.

Tokens are known to it by their digests, as to the store: a commit that revokes one names no more than that.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NoReturn

import anyio
import anyio.abc
from typing_extensions import TypeVar, override

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotFunc,
    Source,
    Subject,
    SubscribeRequest,
    Subscription,
    Topic,
    close_subscription_event,
)

from ._values import token_digest

P = TypeVar("P", default=Any)


class Revoking:
    """How the publisher knows tokens, and what it knows of those that were revoked. Written by the feed."""

    def __init__(self, salt: bytes) -> None:
        # The store's, in its present epoch.
        self.salt = salt
        # The revocations of the store are not all known yet: no cursor is good meanwhile.
        self.is_loading = False
        # Some were revoked here, of which the store does not know.
        self.has_own = False

    def digest(self, token: str) -> str:
        return token_digest(token, self.salt)


class StorePublisher(EventPublisher):
    """A publisher that only its feed feeds."""

    def __init__(self, revoking: Revoking | None, **options: Any) -> None:
        """`revoking`: None for a store that does not know of tokens. The options are those of the class."""
        super().__init__(token_digest=None if revoking is None else revoking.digest, **options)
        self._revoking = revoking

    @override
    def subscribe(
        self,
        request: SubscribeRequest[P],
        *,
        authorizer: Any = None,
        where: Callable[[P], bool] | None = None,
        on_lag: Literal["close", "reset", "conflate"] = "close",
        label: str = "",
    ) -> Subscription[P]:
        if self._revoking is not None and self._revoking.is_loading and isinstance(request, SubscribeRequest):
            request = replace(request, epoch="")  # which is that of no publisher
        return super().subscribe(request, authorizer=authorizer, where=where, on_lag=on_lag, label=label)

    @override
    def close_subscriptions(self, token_secret_ids: Iterable[str]) -> int:
        revoking = self._revoking
        if (
            revoking is None
            or isinstance(token_secret_ids, str)
            or not isinstance(token_secret_ids, Iterable)
        ):
            return super().close_subscriptions(token_secret_ids)
        tokens = tuple(token_secret_ids)
        close_subscription_event(tokens)  # raises for what is no token
        closed = super().close_subscriptions(map(revoking.digest, tokens))
        revoking.has_own = revoking.has_own or bool(tokens)
        return closed

    @override
    def publish(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> NoReturn:
        _refuse("publish")

    @override
    def publish_from_thread(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> NoReturn:
        _refuse("publish_from_thread")

    @override
    def register_handler(self, topic: Topic[Any], handler: SnapshotFunc[Any] | Source) -> NoReturn:
        _refuse("register_handler")

    @override
    def remember_revocations(self, revoked: Mapping[str, int], *, floor: int = 0) -> NoReturn:
        _refuse("remember_revocations")

    @override
    def refresh(
        self,
        topic: Topic[Any] | None = None,
        *,
        index: int | None = None,
        epoch: str | None = None,
        mark: str = "",
    ) -> NoReturn:
        _refuse("refresh")

    @override
    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> NoReturn:
        raise RuntimeError("this publisher runs already: open_store_publisher runs it")


def _refuse(call: str) -> NoReturn:
    raise RuntimeError(f"{call} is refused: a store feeds this publisher. Commit to the store instead")
