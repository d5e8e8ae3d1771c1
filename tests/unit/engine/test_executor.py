"""One message to one fate, whatever a handler returns or raises; see also the other `test_executor_*.py`."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.bench import Bench, HandlerFunction
from support.loop_time import current_task

from worker.errors import PermanentError, TransientError
from worker.message import Message
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Release, Retry
from worker.testing import MemorySource
from worker.testing.fleet import Fleet


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines


def returning(value: object) -> HandlerFunction:
    async def handler(message: Message[str]) -> Any:  # noqa: ARG001 - what it returns is the point
        return value

    return handler


def raising(error: BaseException) -> HandlerFunction:
    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - what it raises is the point
        await asyncio.sleep(1)
        raise error

    return handler


# What a handler returns


@pytest.mark.parametrize("outcome", [Ack(), Ack("known"), Retry(), Retry(after=0), Retry(after=1.5), DeadLetter("bad")])
async def test_an_outcome_is_what_the_handler_returned(outcome: Fate) -> None:
    """It is passed on as it is (E1)."""
    assert await Bench(returning(outcome)).execute() == outcome


async def test_a_handler_that_returns_nothing_is_done() -> None:
    """`None` is `Ack()` (E1)."""
    assert await Bench(returning(None)).execute() == Ack()


@pytest.mark.parametrize(
    "nonsense", [True, False, 0, 42, "ack", b"", [], {}, object(), Ack, Release(), Abandon(), ValueError("returned")]
)
async def test_nonsense_is_never_success(nonsense: object) -> None:
    """Any other value is a contract error: loud, and a failed attempt (E1)."""
    fate = await Bench(returning(nonsense)).execute()
    assert isinstance(fate, Retry)
    assert fate.reason.startswith("ContractError")


@pytest.mark.parametrize(
    "outcome",
    [
        Retry(after=float("nan")),
        Retry(after=float("inf")),
        Retry(after=-1),
        Retry(after="5"),  # type: ignore[arg-type]
        Retry(reason=5),  # type: ignore[arg-type]
        DeadLetter(None),  # type: ignore[arg-type]
        Ack(b"done"),  # type: ignore[arg-type]
    ],
)
async def test_an_outcome_that_cannot_be_settled_is_nonsense_too(outcome: Fate) -> None:
    """A delay that is no number of seconds and a reason that is no text are contract errors (E1)."""
    fate = await Bench(returning(outcome)).execute()
    assert isinstance(fate, Retry)
    assert fate.reason.startswith("ContractError")
    assert fate.after is None


# What a handler raises


class StrangeBaseError(BaseException):
    """Derives from what most code does not catch."""


class MuteError(Exception):
    """Raises when it is asked what it says."""

    def __str__(self) -> str:
        raise ValueError("no text")


class SoldOutError(PermanentError):
    """Does not call its base, as happens."""

    def __init__(self) -> None:
        pass


class BusyError(TransientError):
    """Does not call its base, as happens."""

    def __init__(self) -> None:
        pass


def deep_group(depth: int) -> ExceptionGroup[Exception]:
    group = ExceptionGroup[Exception]("innermost", [ValueError("x")])
    for _ in range(depth):
        group = ExceptionGroup("around", [group])
    return group


@pytest.mark.parametrize(
    "error",
    [
        Exception("boom"),
        ValueError(),
        StrangeBaseError("boom"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        TimeoutError(),
        StopAsyncIteration(),
        RecursionError(),
        MemoryError(),
        MuteError(),
        Exception("x" * 10_000_000),
        Exception("\ud800\x00"),
        ExceptionGroup("several", [ValueError("a"), TypeError("b")]),
        BaseExceptionGroup("several", [KeyboardInterrupt(), SystemExit()]),
        ExceptionGroup("mute", [MuteError()]),
        deep_group(5_000),
        TransientError("busy", retry_after="soon"),  # type: ignore[arg-type]
        BusyError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_handler_raises_is_a_failed_attempt(error: BaseException) -> None:
    """It is tried again by the queue's backoff, and the reason names it (E1)."""
    fate = await Bench(raising(error)).execute()
    assert isinstance(fate, Retry)
    assert fate.after is None
    assert len(fate.reason) <= 500
    assert fate.reason


async def test_the_reason_of_a_failed_attempt_has_nothing_of_what_drivers_quote() -> None:
    """It is the first line of what was raised; row and parameters stand below it (M3)."""
    fate = await Bench(raising(LookupError("taken\nDETAIL: Key (id)=(4111) already exists."))).execute()
    assert isinstance(fate, Retry)
    assert fate.reason == "LookupError: taken"


async def test_stop_iteration_is_a_failed_attempt() -> None:
    """Python makes it a `RuntimeError` on its way out of a coroutine (E1)."""

    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - what it raises is the point
        next(iter(()))

    fate = await Bench(handler).execute()
    assert isinstance(fate, Retry)
    assert fate.reason.startswith("RuntimeError")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TransientError("busy", retry_after=60), Retry(after=60, reason="busy")),
        (TransientError(), Retry(reason="TransientError")),
        (PermanentError("sold out"), DeadLetter("sold out")),
        (PermanentError(), DeadLetter("PermanentError")),
        (PermanentError(404), DeadLetter("404")),  # type: ignore[arg-type]
        (SoldOutError(), DeadLetter("SoldOutError")),
    ],
)
async def test_the_two_errors_of_ours_say_what_they_want(error: Exception, outcome: Fate) -> None:
    """`TransientError` is `Retry` and `PermanentError` is `DeadLetter`, subclasses too (E1)."""
    fate = await Bench(raising(error)).execute()
    assert fate == outcome
    assert not isinstance(fate, (Retry, DeadLetter)) or fate.error is error


async def test_a_group_is_permanent_only_if_all_of_it_is() -> None:
    """One member that may pass is reason to try again (E1)."""
    both = ExceptionGroup("all", [PermanentError("a"), ExceptionGroup("inner", [PermanentError("b")])])
    assert await Bench(raising(both)).execute() == DeadLetter("a")
    mixed = ExceptionGroup("some", [PermanentError("a"), TransientError("b", retry_after=7)])
    assert await Bench(raising(mixed)).execute() == Retry(after=7, reason="a")
    waits = ExceptionGroup("waits", [TransientError("a", retry_after=7), TransientError("b", retry_after=70)])
    assert await Bench(raising(waits)).execute() == Retry(after=70, reason="a")


# A handler's own cancellations and timeouts


async def cancels_a_future(message: Message[str]) -> None:  # noqa: ARG001
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_its_child(message: Message[str]) -> None:  # noqa: ARG001
    child = asyncio.create_task(asyncio.sleep(10))
    asyncio.get_running_loop().call_later(1, child.cancel)
    await child


async def cancels_itself(message: Message[str]) -> None:  # noqa: ARG001
    current_task().cancel()
    await asyncio.sleep(10)


async def cancels_itself_and_returns(message: Message[str]) -> None:  # noqa: ARG001
    current_task().cancel()


async def times_out(message: Message[str]) -> None:  # noqa: ARG001
    async with asyncio.timeout(1):
        await asyncio.sleep(10)


@pytest.mark.parametrize(
    "handler", [cancels_a_future, cancels_its_child, cancels_itself, cancels_itself_and_returns, times_out]
)
async def test_a_handlers_own_cancellation_is_a_failed_attempt(handler: HandlerFunction) -> None:
    """It is neither ours nor a lost lease, and nothing of it stays behind (E1)."""
    fate = await Bench(handler).execute()
    assert isinstance(fate, Retry)
    assert fate.reason.startswith(("CancelledError", "TimeoutError"))
    assert not current_task().cancelling()


async def test_a_cancellation_that_a_handler_caught_is_its_own_affair() -> None:
    """It returned, so it is done (E1)."""

    async def handler(message: Message[str]) -> None:  # noqa: ARG001 - what it does is the point
        current_task().cancel()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return

    assert await Bench(handler).execute() == Ack()
    assert not current_task().cancelling()


async def test_a_timer_that_a_handler_forgot_does_not_hit_the_settlement() -> None:
    """It cancels the handler's task a second after its end, while the delete is on the wire (E1, S1)."""
    source = MemorySource()
    source.faults.slow("delete", 3)
    runs: list[int] = []

    async def handler(message: Message[str]) -> None:
        runs.append(message.receive_count)
        asyncio.get_running_loop().call_later(1, current_task().cancel)

    source.send("order")
    await Fleet(source).run(handler)
    assert runs == [1]
    assert source.calls["delete"] == 1
