"""The receiver: the receive loops of one queue. It asks SQS for no more than there is room to start."""

import asyncio
import uuid
from collections.abc import Callable

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.guarded import guarded
from worker.engine.slots import Reservation, Slots
from worker.engine.throttle import Throttle
from worker.engine.vitals import LoopPulse
from worker.errors import Fault, SourceError
from worker.message import Received
from worker.source import MAX_BATCH, ReceiveRequest
from worker.telemetry.logs import LoggedState

__all__ = ["Receiver", "max_loops"]

QUICK_SECONDS = 0.2
"""A receive that is back within this time and not empty has found a backlog: another loop may help."""
BACKOFF_CAP_SECONDS = 20.0
"""Under the thirty seconds within which consumption resumes after an outage."""
SETUP_PAUSE_SECONDS = 1.0
"""At least this long between calls that fail for what a person must mend."""
CALL_GRACE_SECONDS = 30.0
"""A source ends a receive by its own deadline, `wait + 10`, and may have to look up the queue first; later is stuck."""
QUIETLY_FAILING = 3
"""Passing faults in a row before the queue counts as not ready."""

SHORT_POLL_SECONDS = 1.0
"""Between empty receives of a queue whose `wait_time_seconds` is 0: each of them costs as much as a long poll."""
MAX_LOOPS = 16

Dispatch = Callable[[Received, Reservation, float], None]
"""Take over one message, the room for it, and the moment from which its lease counts."""

log = structlog.get_logger("receiver")


def max_loops(room: int) -> int:
    """Return how many receives of one queue may be on the wire at once: a connection each."""
    return min(MAX_LOOPS, room // MAX_BATCH + 1)


class Receiver:
    """Receives for one queue.

    1. Room is reserved before every receive and what is not used goes back.
    2. One loop polls an idle queue; a backlog opens more while there is room, an empty answer or an error closes them.
    3. An error never ends the last loop: it waits with jitter, up to twenty seconds, and says so once.
    4. A receive on the wire is never cancelled by `stop`; only `give_up` does that.
    """

    def __init__(self, context: QueueContext, slots: Slots, dispatch: Dispatch, throttle: Throttle) -> None:
        self._context = context
        self._slots = slots
        self._dispatch = dispatch
        self._throttle = throttle
        self._stopping = asyncio.Event()
        self._loops: set[asyncio.Task[None]] = set()
        """The loops that go on; one that has decided to close is not among them."""
        self._opened = 0
        self._on_wire = 0
        self._failures = 0
        self._state = LoggedState(log.bind(queue=context.queue), "receive", clock=context.clock.now)
        self._most_loops = max_loops(slots.size)
        self._whole_receive = min(MAX_BATCH, slots.size)

    async def run(self) -> None:
        """Receive until stopped; return when the last receive on the wire has ended."""
        self._open_loop()
        try:
            while self._loops:
                await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)
        finally:  # loops are left only when we are cancelled ourselves
            self.give_up()

    def stop(self) -> None:
        """Issue no more receives."""
        self._stopping.set()
        self._slots.close()
        self._throttle.close()

    def give_up(self) -> int:
        """Cancel the receives on the wire and return their number: SQS may still hand them messages."""
        given_up = self._on_wire
        for loop in self._loops:
            loop.cancel()
        for _ in range(given_up):
            self._context.metrics.receive_given_up()
        return given_up

    def _open_loop(self) -> None:
        self._opened += 1
        name = f"receive-{self._context.queue}-{self._opened}"
        loop = asyncio.create_task(guarded("receive", self._context, self._loop), name=name)
        self._loops.add(loop)
        loop.add_done_callback(self._close_loop)
        self._context.metrics.receive_loops(len(self._loops))

    def _close_loop(self, loop: "asyncio.Task[None] | None") -> None:
        if loop in self._loops:
            self._loops.remove(loop)
            self._context.metrics.receive_loops(len(self._loops))

    def _closes_as_spare(self) -> bool:
        """Close the calling loop at once if another one goes on: two that decide in the same moment must not both end."""
        if len(self._loops) <= 1:
            return False
        self._close_loop(asyncio.current_task())
        return True

    def _may_open_loop(self) -> bool:
        return (
            self._slots.free >= self._whole_receive
            and len(self._loops) < self._most_loops
            and not self._stopping.is_set()
        )

    async def _loop(self, pulse: LoopPulse) -> None:
        while not self._stopping.is_set():
            pulse.wait_for_room()
            with await self._slots.reserve(MAX_BATCH) as room:
                if room:
                    pulse.expect("waiting for room or for permits")
                    await self._throttle.permit(room)
                if not room:
                    return
                is_whole = room.size >= self._whole_receive
                count, seconds = await self._receive(room, pulse)
            if not (count and is_whole) and self._closes_as_spare():
                return
            if count is None:
                await self._back_off(pulse)
            elif not count and not self._context.settings.wait_time_seconds:
                pulse.expect("between short polls", SHORT_POLL_SECONDS + CALL_GRACE_SECONDS)
                await self._pause(SHORT_POLL_SECONDS)
            elif count and seconds < QUICK_SECONDS and self._may_open_loop():
                self._open_loop()

    async def _receive(self, room: Reservation, pulse: LoopPulse) -> tuple[int | None, float]:
        """Receive once and hand over what came; return the count, `None` after a failure, and the seconds it took."""
        context = self._context
        sent = context.clock.now()
        try:
            batch = await self._call(room.size, pulse)
        except SourceError as error:
            self._failed(error)
            return None, 0.0
        read = context.clock.now()
        self._succeeded()
        self._throttle.found(len(batch))
        # The answer may have waited in the socket while we stood still; only the moment of sending is sure then.
        since = sent if context.ticker.stood_still_since(sent) else read
        if batch:
            context.metrics.received(len(batch))
        else:
            context.metrics.empty_receive()
        for received in batch:
            self._dispatch(received, room, since)
        return len(batch), read - sent

    async def _call(self, limit: int, pulse: LoopPulse) -> list[Received]:
        """Ask SQS; on a FIFO queue ask the same again, with the room still reserved, while the answer was lost (R8)."""
        settings = self._context.settings
        request = ReceiveRequest(
            limit=limit,
            wait_seconds=0 if self._failures else self._throttle.poll_seconds(settings.wait_time_seconds),
            visibility_timeout_seconds=settings.visibility_timeout_seconds,
            attempt_id=str(uuid.uuid4()) if settings.is_fifo else None,
        )
        failures = 0
        while True:
            pulse.expect("waiting for SQS", request.wait_seconds + CALL_GRACE_SECONDS)
            try:
                return await self._ask(request)
            except SourceError as error:
                failures += 1
                self._context.metrics.receive_error(error.fault)
                is_unknown = error.fault in {Fault.TIMEOUT, Fault.UNAVAILABLE}
                if request.attempt_id is None or not is_unknown or failures > QUIETLY_FAILING:
                    raise
                await self._pause(full_jitter(failures, base_seconds=0.5, cap_seconds=2))
                if self._stopping.is_set():
                    raise

    async def _ask(self, request: ReceiveRequest) -> list[Received]:
        self._on_wire += 1
        try:
            return await self._context.source.receive(request)
        finally:
            self._on_wire -= 1

    def _succeeded(self) -> None:
        self._failures = 0
        self._state.recovered()
        self._context.vitals.is_reached = True
        self._context.vitals.solved("receive")

    def _failed(self, error: SourceError) -> None:
        if len(self._loops) == 1:  # many that fail in one outage are one failure; all but the last loop close
            self._failures += 1
        self._state.failed(error.fault, str(error))
        if not error.fault.may_pass or self._failures >= QUIETLY_FAILING:
            self._context.vitals.trouble("receive", self._sentence(error))

    def _sentence(self, error: SourceError) -> str:
        match error.fault:
            case Fault.MISSING:
                return f"the queue does not exist ({error.code}); create it or correct its name in the fleet file"
            case Fault.DENIED:
                return f"receiving is denied ({error}); allow sqs:ReceiveMessage on it"
            case _:
                return f"receiving fails, {self._failures} times in a row ({error})"

    async def _back_off(self, pulse: LoopPulse) -> None:
        delay = full_jitter(self._failures, base_seconds=1, cap_seconds=BACKOFF_CAP_SECONDS)
        if self._context.vitals.problems.get("receive"):
            delay = max(delay, SETUP_PAUSE_SECONDS)
        pulse.expect("backing off", delay + CALL_GRACE_SECONDS)
        await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
