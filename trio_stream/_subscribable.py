"""What readers use of a publisher, so that they need not know which one it is."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

from typing_extensions import TypeVar

from ._request import SubscribeRequest
from ._subscription import Subscription

P = TypeVar("P", default=Any)


class Subscribable(Protocol):
    """What readers use of a publisher: `EventPublisher` and `NoOpEventPublisher` have it.

    How far the publisher has come is not part of it.
    A reader learns that from its own subscription, by `Subscription.index`, `Subscription.horizon`,
    `Subscription.epoch` and `Subscription.wait_published`, wherever the publisher is.
    """

    def subscribe(
        self,
        request: SubscribeRequest[P],
        *,
        authorizer: Any = None,
        where: Callable[[P], bool] | None = None,
        on_lag: Literal["close", "reset", "conflate"] = "close",
        label: str = "",
    ) -> Subscription[P]:
        """A new subscription, as `EventPublisher.subscribe` makes it."""
        ...
