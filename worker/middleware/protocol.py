"""What a middleware is: a coroutine function around every handler call of a router."""

from typing import Any, Protocol

from worker.message import Message
from worker.outcome import Outcome

__all__ = ["CallNext", "Middleware"]


class CallNext(Protocol):
    """The rest of the chain: the next middleware, or the handler with its outcome."""

    async def __call__(self, message: Message[Any], /) -> Outcome:
        """Run the rest of the chain; raises whatever the handler raises."""


class Middleware(Protocol):
    """Sees every message before its handler and every outcome after it; the first in the list is outermost.

    It returns an `Outcome`, most often the one that `call_next` gave. Delivery guarantees are never middleware.
    """

    async def __call__(self, message: Message[Any], call_next: CallNext, /) -> Outcome:
        """Handle one message, as a rule by `return await call_next(message)`."""
