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

from ._pulse import Pulse
from ._values import check_request, token_digest

P = TypeVar("P", default=Any)


class Admission:
    """How the publisher takes requests. Written by the feed."""

    def __init__(self, salt: bytes | None) -> None:
        # The store's, in its present epoch, by which it makes digests of tokens; None if it does not know of tokens.
        self.salt = salt
        # The newest commit for which a cursor needs no mark: the store was upgraded behind it.
        self.unmarked = 0
        # The revocations of the store are not all known yet: no cursor is good meanwhile.
        self.is_loading = False
        # The digests of tokens whose subscriptions were closed ahead of the commit that revokes them, which is to be
        # published next; and those of them with which somebody has subscribed since.
        self.closed: set[str] = set()
        self.late: set[str] = set()
        # Tokens were revoked here, of which the store does not know.
        self.has_own = False

    def digest(self, token: str) -> str:
        assert self.salt is not None
        return token_digest(token, self.salt)

    def note(self, token: str) -> None:
        """Somebody subscribes with it."""
        if self.closed and (digest := self.digest(token)) in self.closed:
            self.late.add(digest)

    def admitted(self, request: SubscribeRequest[P], epoch: str) -> SubscribeRequest[P]:
        """The request with a cursor that the core judges as is right here, where the epoch is this."""
        if self.is_loading and request.index:
            return replace(request, epoch="")  # which is that of no publisher
        if request.epoch == epoch and not request.mark and request.index <= self.unmarked:
            return replace(request, epoch=None)  # which is trusted
        return request


class StorePublisher(EventPublisher):
    """A publisher that only its feed feeds."""

    def __init__(self, admission: Admission, pulse: Pulse, **options: Any) -> None:
        """The options are those of the class."""
        super().__init__(token_digest=None if admission.salt is None else admission.digest, **options)
        self._admission = admission
        self._pulse = pulse

    @property
    @override
    def feed_age(self) -> float:
        return self._pulse.age

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
        if isinstance(request, SubscribeRequest):
            check_request(request)
            self._admission.note(request.token)
            request = self._admission.admitted(request, self.epoch)
        return super().subscribe(request, authorizer=authorizer, where=where, on_lag=on_lag, label=label)

    @override
    def close_subscriptions(self, token_secret_ids: Iterable[str]) -> int:
        admission = self._admission
        if (
            admission.salt is None
            or isinstance(token_secret_ids, str)
            or not isinstance(token_secret_ids, Iterable)
        ):
            return super().close_subscriptions(token_secret_ids)
        tokens = tuple(token_secret_ids)
        close_subscription_event(tokens)  # raises for what is no token
        closed = super().close_subscriptions(map(admission.digest, tokens))
        admission.has_own = admission.has_own or bool(tokens)
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
