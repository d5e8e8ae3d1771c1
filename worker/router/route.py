"""`Route`: one pattern, its handler with the middleware around it, and what the handler asks of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from worker.aws.envelope import Decoded
from worker.errors import ConfigError
from worker.idempotency import IdempotencyKey
from worker.message import Message
from worker.middleware.protocol import CallNext, Middleware
from worker.objects import S3Pointer
from worker.outcome import Outcome
from worker.router.batch import Batch
from worker.router.handler import ContractError, Handler, checked_outcome

__all__ = ["HandlerOptions", "Route"]

MAX_TIMEOUT_SECONDS: Final = 43_200  # SQS hides no message for longer
MAX_ATTEMPTS: Final = 993  # SQS's own net, max_receive_count, stands at attempts + 7 and ends at 1000


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """What a handler asks for itself; `None` means that the queue's setting holds."""

    timeout_seconds: float | None = None
    """Above 0, at most 43200 (12 hours)."""
    attempts: int | None = None
    """Failed runs until the dead-letter queue: 1 to 993."""
    batch: Batch | None = None
    """How many messages one call takes; `None` is one."""
    limit: str | None = None
    """The name of the limit in the fleet file that its calls keep to."""
    idempotency_key: IdempotencyKey | None = None
    """The business key of an event, by which its work is done once; `None` runs every delivery."""

    def check(self, owner: str) -> None:
        """Raise `ConfigError`, which names the owner, when a value is out of bounds."""
        timeout, attempts = self.timeout_seconds, self.attempts
        if timeout is not None and not (_is_number(timeout) and 0 < timeout <= MAX_TIMEOUT_SECONDS):
            raise ConfigError(
                f"{owner} has timeout={timeout!r}; allowed are seconds above 0 and up to {MAX_TIMEOUT_SECONDS}"
            )
        if attempts is not None and not (type(attempts) is int and 1 <= attempts <= MAX_ATTEMPTS):
            raise ConfigError(f"{owner} has attempts={attempts!r}; allowed is a whole number from 1 to {MAX_ATTEMPTS}")
        if self.batch is not None and not isinstance(self.batch, Batch):
            raise ConfigError(f"{owner} has batch={self.batch!r}; allowed is `Batch(size=200, window_seconds=1)`")
        limit: object = self.limit
        if limit is not None and not (isinstance(limit, str) and limit):
            raise ConfigError(f"{owner} has limit={limit!r}; allowed is the name of a limit in the fleet file")


class Route:
    """A handler as the engine calls it."""

    __slots__ = (
        "_chain",
        "_middleware",
        "attempts",
        "batch",
        "handler",
        "idempotency_key",
        "limit",
        "name",
        "pattern",
        "timeout_seconds",
    )

    def __init__(
        self, pattern: str, handler: Handler, options: HandlerOptions, middleware: Sequence[Middleware] = ()
    ) -> None:
        self.pattern = pattern
        self.handler = handler
        self.name = handler.name
        """`module.qualname` of the handler, for logs and metrics."""
        self.timeout_seconds = options.timeout_seconds
        self.attempts = options.attempts
        self.batch = options.batch
        self.limit = options.limit
        self.idempotency_key = options.idempotency_key
        self._middleware = middleware
        self._chain = self.around(handler if self.batch is None else _in_a_batch_of_one(handler))

    def around(self, innermost: CallNext) -> CallNext:
        """Return the route's middleware around something else than the handler: what collects its batches."""
        chain = innermost
        for outer in reversed(self._middleware):
            chain = _around(outer, chain)
        return chain

    @property
    def takes_pointers(self) -> bool:
        """Whether the handler wants to know where a large payload lies, instead of the payload."""
        return self.handler.payload.type is S3Pointer

    def event_of(self, decoded: Decoded) -> Any:
        """Return the payload in the type of the annotation; raises `InvalidPayloadError`, which quotes no value."""
        return self.handler.payload.read(decoded)

    async def call(self, message: Message[Any]) -> Outcome:
        """Run the middleware and the handler; raises what they raise, and `ContractError` for a non-outcome.

        A handler of batches is given a batch of one.

        Cancelled while a sync handler runs, it ends only when the handler has ended.
        """
        return await self._chain(message)


def _around(middleware: Middleware, call_next: CallNext) -> CallNext:
    label = f"middleware `{getattr(middleware, '__qualname__', type(middleware).__qualname__)}`"

    async def call(message: Message[Any], /) -> Outcome:
        return checked_outcome(await middleware(message, call_next), label, "Ack, Retry or DeadLetter")

    return call


def _in_a_batch_of_one(handler: Handler) -> CallNext:
    async def call(message: Message[Any], /) -> Outcome:
        (outcome,) = await handler.call_batch([message])
        if isinstance(outcome, ContractError):
            raise outcome
        return outcome

    return call


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
