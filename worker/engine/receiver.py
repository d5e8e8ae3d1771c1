"""The receiver: the receive loops of one queue. It asks SQS for no more than there is room to start."""

import asyncio
import uuid
from collections.abc import Callable

import structlog

from worker.engine.backoff import full_jitter
from worker.engine.context import QueueContext
from worker.engine.gate import Gate
from worker.engine.guarded import guarded
from worker.engine.slots import Reservation, Slot, Slots
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
CALL_GRACE_SECONDS = 20.0
"""A source ends every call by its own deadline, `wait + 10` for a receive; later than this its loop is stuck."""
QUIETLY_FAILING = 3
"""Passing faults in a row before the queue counts as not ready."""

MAX_LOOPS = 16

Dispatch = Callable[[Received, Slot, float], None]
"""Take over one message, its slot, and the moment from which its lease counts."""

log = structlog.get_logger("receiver")


def max_loops(concurrency: int) -> int:
    """Return how many receives of one queue may be on the wire at once: a connection each."""
    return min(MAX_LOOPS, concurrency // MAX_BATCH + 1)


class Receiver:
    """Receives for one queue.

    1. Room is reserved before every receive and what is not used goes back.
    2. One loop polls an idle queue; a backlog opens more while there is room, an empty answer closes them.
    3. An error never ends the last loop: it waits with jitter, up to twenty seconds, and says so once.
    4. A receive on the wire is never cancelled by `stop`; only `give_up` does that.
    """

    def __init__(self, context: QueueContext, slots: Slots, gate: Gate, dispatch: Dispatch) -> None:
        self._context = context
        self._slots = slots
        self._gate = gate
        self._dispatch = dispatch
        self._stopping = asyncio.Event()
        self._loops: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._state = LoggedState(log.bind(queue=context.queue), "receive", clock=context.clock.now)
        # SQS keeps the order of a group only while one message of it is out, so FIFO asks for one at a time.
        self._limit = 1 if context.settings.is_fifo else MAX_BATCH

    async def run(self) -> None:
        """Receive until stopped; return when the last receive on the wire has ended."""
        self._open_loop()
        while self._loops:
            await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)

    def stop(self) -> None:
        """Issue no more receives."""
        self._stopping.set()
        self._slots.close()

    def give_up(self) -> int:
        """Cancel the receives on the wire and return their number: SQS may still hand them messages."""
        for loop in self._loops:
            loop.cancel()
            self._context.metrics.receive_given_up()
        return len(self._loops)

    def _may_open_loop(self) -> bool:
        limit = max_loops(self._context.settings.concurrency)
        return bool(self._slots.free) and len(self._loops) < limit and not self._stopping.is_set()

    def _open_loop(self) -> None:
        name = f"receive-{self._context.queue}-{len(self._loops) + 1}"
        pulse = LoopPulse(name)
        self._context.vitals.pulses.append(pulse)
        task = asyncio.create_task(guarded("receive", self._context, lambda: self._loop(pulse)), name=name)
        self._loops.add(task)
        task.add_done_callback(lambda task: self._close_loop(task, pulse))
        self._context.metrics.receive_loops(len(self._loops))

    def _close_loop(self, task: asyncio.Task[None], pulse: LoopPulse) -> None:
        self._loops.discard(task)
        self._context.vitals.pulses.remove(pulse)
        self._context.metrics.receive_loops(len(self._loops))

    async def _loop(self, pulse: LoopPulse) -> None:
        while not self._stopping.is_set():
            if self._gate.is_closed:
                await self._wait_for_gate(pulse)
            self._stamp(pulse, "waiting for room", 0, is_waiting_for_room=True)
            with await self._slots.reserve(self._limit) as room:
                if not room:
                    return
                count, seconds = await self._receive(room, pulse)
            if count is None:
                await self._back_off(pulse)
            if not count and len(self._loops) > 1:
                return
            if count and seconds < QUICK_SECONDS and self._may_open_loop():
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
        # The answer may have waited in the socket while we stood still; only the moment of sending is sure then.
        since = sent if context.ticker.stood_still_since(sent) else read
        if batch:
            context.metrics.received(len(batch))
        else:
            context.metrics.empty_receive()
        for received in batch:
            self._dispatch(received, room.take(), since)
        return len(batch), read - sent

    async def _call(self, limit: int, pulse: LoopPulse) -> list[Received]:
        """Ask SQS; on a FIFO queue ask again, with the same attempt id and room, while the answer was lost (R8)."""
        settings = self._context.settings
        attempt_id = str(uuid.uuid4()) if settings.is_fifo else None
        failures = 0
        while True:
            request = ReceiveRequest(
                limit=limit,
                wait_seconds=0 if self._failures else settings.wait_time_seconds,
                visibility_timeout_seconds=settings.visibility_timeout_seconds,
                attempt_id=attempt_id,
            )
            self._stamp(pulse, "waiting for SQS", request.wait_seconds + CALL_GRACE_SECONDS)
            try:
                return await self._context.source.receive(request)
            except SourceError as error:
                failures += 1
                is_unknown = error.fault in {Fault.TIMEOUT, Fault.UNAVAILABLE}
                if attempt_id is None or not is_unknown or failures > QUIETLY_FAILING or self._stopping.is_set():
                    raise
            await self._pause(full_jitter(failures, base_seconds=0.5, cap_seconds=2))

    def _succeeded(self) -> None:
        self._context.vitals.is_reached = True
        if self._failures:
            self._failures = 0
            self._context.vitals.solved("receive")
            self._state.recovered()

    def _failed(self, error: SourceError) -> None:
        self._failures += 1
        self._context.metrics.receive_error(error.fault)
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
        self._stamp(pulse, "backing off", delay + CALL_GRACE_SECONDS)
        await self._pause(delay)

    async def _wait_for_gate(self, pulse: LoopPulse) -> None:
        self._stamp(pulse, "paused: settlement does not work", float("inf"))
        self._context.vitals.trouble("settlement", self._gate.problem or "settlement fails")
        self._context.metrics.settlement_blocked(True)
        await self._gate.wait_until_open(self._stopping)
        self._context.vitals.solved("settlement")
        self._context.metrics.settlement_blocked(False)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _stamp(self, pulse: LoopPulse, doing: str, seconds: float, *, is_waiting_for_room: bool = False) -> None:
        now = self._context.clock.now()
        pulse.doing = doing
        pulse.due_at = now + seconds
        pulse.is_waiting_for_room = is_waiting_for_room
        if is_waiting_for_room:
            pulse.due_at = now + self._context.vitals.full_bound_seconds
