"""`run`: one event through one router, without a queue, to the outcome that production would settle."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, Unpack

import pydantic_core

from worker.aws.envelope import Decoded, decode
from worker.errors import ConfigError, InvalidPayloadError, PermanentError, TransientError
from worker.message import Attribute, Lease, Message, Received
from worker.outcome import DeadLetter, Outcome, Retry
from worker.router import Route, Router
from worker.router.threads import RUN_IN_PLACE
from worker.testing import virtual_time

__all__ = ["FakeLease", "MessageFields", "run"]

_UNSET: Final = object()


@dataclass
class FakeLease:
    """A lease that lasts until the test says otherwise."""

    is_lost: bool = False
    remaining_seconds: float = 30.0
    extended: list[float] = field(default_factory=list)
    """The seconds of every `extend`, in order."""

    async def extend(self, seconds: float) -> None:
        """Note the seconds and count them as what remains, if that is more."""
        self.extended.append(seconds)
        self.remaining_seconds = max(self.remaining_seconds, seconds)


class MessageFields(TypedDict, total=False):
    """What a test may say of the message; the rest has values that fit a first receive."""

    id: str
    queue: str
    receive_count: int
    sent_at: datetime | None
    published_at: datetime | None
    group_id: str | None
    sequence_number: str | None
    lease: Lease
    state: Any
    """Instead of what the router's lifespan yields, which is then not entered."""


async def run(
    router: Router,
    event: object,
    *,
    event_type: str | None = None,
    attributes: Mapping[str, str | bytes] | None = None,
    **fields: Unpack[MessageFields],
) -> Outcome:
    """Run the router's handler, with its middleware, for one event and return the outcome.

    An event of the handler's own type is handed over as it is. Text and bytes are a body, and everything else is
    written as one: it is validated as in production, and a payload that does not fit is `DeadLetter`. Without
    `event_type` the type is the attribute's, else that of the one handler annotated with the event's class, else the
    body's. `TransientError` becomes `Retry` and `PermanentError` becomes `DeadLetter`; every other exception, the
    handler's own timeout too, is raised, so that a test shows its traceback where production would retry.
    Raises `ConfigError` when no handler takes the event or when several could.
    """
    router.check()
    attributes = dict(attributes or {})
    if event_type is None and "event_type" not in attributes:
        event_type = _type_by_annotation(router, event)
    if event_type is not None:
        attributes["event_type"] = event_type
    decoded = decode(_received(event, attributes), "raw")
    route = router.resolve(decoded.event_type)
    if route is None:
        found = "no event type" if decoded.event_type is None else f"the event type {decoded.event_type[:200]!r}"
        raise ConfigError(f"no handler takes an event with {found}; the router has {_patterns(router.routes)}")
    state = fields.pop("state", _UNSET)
    async with router.lifespan_context() if state is _UNSET else nullcontext(state) as entered:
        try:
            message = _message(route, event, decoded, {**fields, "state": entered})
            return await _call(route, message)
        except TransientError as error:
            return Retry(after=error.retry_after, reason=error.reason or type(error).__name__, error=error)
        except PermanentError as error:
            shown = None if isinstance(error, InvalidPayloadError) else error
            return DeadLetter(error.reason or type(error).__name__, error=shown)


async def _call(route: Route, message: Message[Any]) -> Outcome:
    token = RUN_IN_PLACE.set(virtual_time.is_running())
    try:
        async with asyncio.timeout(route.timeout_seconds):
            return await route.call(message)
    finally:
        RUN_IN_PLACE.reset(token)


def _type_by_annotation(router: Router, event: object) -> str | None:
    """Return the pattern of the one handler annotated with the event's class; `None` leaves it to the body."""
    takers = [route for route in router.routes if route.handler.payload.type is type(event)]
    if not takers or isinstance(event, (str, bytes, dict)):
        return None
    if len(takers) > 1 or takers[0].pattern.endswith(".*"):
        raise ConfigError(
            f"the event type of a {type(event).__name__} cannot be told: it is taken by {_patterns(takers)}; "
            f"give `event_type=`"
        )
    return None if takers[0].pattern == "*" else takers[0].pattern


def _received(event: object, attributes: Mapping[str, str | bytes]) -> Received:
    if isinstance(event, bytes):
        body = event.decode()
    elif isinstance(event, str):
        body = event
    else:
        body = pydantic_core.to_json(event, fallback=repr).decode()
    kept = {
        name: Attribute("Binary" if isinstance(value, bytes) else "String", value) for name, value in attributes.items()
    }
    return Received(id="00000000-0000-0000-0000-000000000001", receipt="receipt", body=body, attributes=kept)


def _message(route: Route, event: object, decoded: Decoded, fields: dict[str, Any]) -> Message[Any]:
    is_ready = route.handler.payload.type in type(event).__mro__ and not isinstance(event, (str, bytes))
    known: dict[str, Any] = {
        "id": "00000000-0000-0000-0000-000000000001",
        "queue": "test",
        "event": event if is_ready else route.event_of(decoded),
        "event_type": decoded.event_type,
        "body": decoded.body,
        "attributes": decoded.attributes,
        "receive_count": 1,
        "sent_at": datetime.now(UTC),
        "published_at": decoded.published_at,
        "group_id": None,
        "sequence_number": None,
        "lease": FakeLease(),
    }
    return Message(**known | fields)


def _patterns(routes: tuple[Route, ...] | list[Route]) -> str:
    return ", ".join(f"`{route.pattern}` ({route.name})" for route in routes)
