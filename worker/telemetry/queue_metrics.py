"""The verbs of one queue: each arrow of a message's way calls one of them."""

import time
from collections.abc import Callable
from typing import TypedDict

from worker.errors import Fault
from worker.source import Depth
from worker.telemetry import declared
from worker.telemetry.cells import Computed, Number, Reading, Sheet, Spread

__all__ = ["QueueMetrics", "QueueSnapshot"]


class QueueSnapshot(TypedDict):
    """One queue at one moment, ready for JSON. Totals count from the start of the process; `None` is not known."""

    ready: bool
    settlement_blocked: bool
    breaker_open: bool
    held: int
    messages: dict[str, int | None]
    dead_letters: int | None
    received: int
    empty_receives: int
    redelivered: int
    duplicates: int
    receive_errors: dict[str, int]
    in_hand: int
    slots: dict[str, int]
    stuck: int
    receive_loops: int
    handled: int
    handler_mean_seconds: float | None
    settled: dict[str, int]
    retried_in_place: int
    leases_lost: int
    api_calls: int
    last_lag_seconds: dict[str, float | None]
    seconds_since_last_message: float


class QueueMetrics:
    """Counts what happens to one queue's messages.

    A verb is a few additions to plain numbers; it never waits. Verbs are called from the event loop's thread, reads from any.
    """

    def __init__(self, queue: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.queue = queue
        self._clock = clock
        self._last_message = clock()
        self.sheet = sheet = Sheet({"queue": queue})
        self._messages = sheet.each(declared.QUEUE_MESSAGES, Reading)
        self._dead_letters = sheet.one(declared.DEAD_LETTER_MESSAGES, Reading)
        self._lag = sheet.each(declared.LAG, lambda: Spread(declared.LAG.buckets))
        self._since_last_message = sheet.put(declared.SINCE_LAST_MESSAGE, Computed(self._seconds_since_last_message))
        self._received = sheet.one(declared.RECEIVED, Number)
        self._empty_receives = sheet.one(declared.EMPTY_RECEIVES, Number)
        self._receive_errors = sheet.each(declared.RECEIVE_ERRORS, Number)
        self._receives_given_up = sheet.one(declared.RECEIVES_GIVEN_UP, Number)
        self._redelivered = sheet.one(declared.REDELIVERED, Number)
        self._duplicates = sheet.one(declared.DUPLICATES, Number)
        self._unreadable_deadlines = sheet.one(declared.UNREADABLE_DEADLINES, Number)
        self._in_hand = sheet.one(declared.IN_HAND, Number)
        self._slots = sheet.each(declared.SLOTS, Number)
        self._running = self._slots["in_use"]
        self._handler = sheet.one(declared.HANDLER, lambda: Spread(declared.HANDLER.buckets))
        self._stuck = sheet.one(declared.STUCK, Number)
        self._settled = sheet.each(declared.SETTLED, Number)
        self._retried_in_place = sheet.one(declared.RETRIED_IN_PLACE, Number)
        self._beats = sheet.each(declared.LEASE_BEATS, Number)
        self._leases_lost = sheet.one(declared.LEASES_LOST, Number)
        self._api_calls = {
            (operation, result): sheet.put(declared.API_CALLS, Number(), operation=operation, result=result)
            for operation in declared.API_CALLS.labels["operation"]
            for result in declared.API_CALLS.labels["result"]
        }
        self._api_call_seconds = sheet.each(declared.API_CALL_SECONDS, Spread)
        self._receive_loops = sheet.one(declared.RECEIVE_LOOPS, Number)
        self._loop_restarts = sheet.each(declared.LOOP_RESTARTS, Number)
        self._ready = sheet.one(declared.READY, Number)
        self._settlement_blocked = sheet.one(declared.SETTLEMENT_BLOCKED, Number)
        self._breaker_open = sheet.one(declared.BREAKER_OPEN, Number)
        self._breaker_opened = sheet.one(declared.BREAKER_OPENED, Number)
        self._held = sheet.one(declared.HELD, Number)
        self._idempotency_duplicates = sheet.each(declared.IDEMPOTENCY_DUPLICATES, Number)
        self._idempotency_errors = sheet.each(declared.IDEMPOTENCY_ERRORS, Number)
        self._idempotency_seconds = sheet.each(declared.IDEMPOTENCY_SECONDS, Spread)

    # Receive

    def received(self, count: int) -> None:
        """Count the messages of one receive."""
        self._received.value += count
        if count:
            self._last_message = self._clock()

    def empty_receive(self) -> None:
        """Count a receive that brought nothing."""
        self._empty_receives.value += 1

    def receive_error(self, fault: Fault) -> None:
        """Count a receive that failed."""
        self._receive_errors[fault].value += 1

    def receive_given_up(self) -> None:
        """Count a receive that was still open when the drain ended."""
        self._receives_given_up.value += 1

    def receive_loops(self, count: int) -> None:
        """Say how many receive loops run."""
        self._receive_loops.value = count

    def last_receive(self, at: float | None = None) -> None:
        """Say when a message was last received, by the monotonic clock; now when not given. `received` says it too."""
        self._last_message = self._clock() if at is None else at

    def lag(self, seconds_since_sent: float | None, seconds_since_published: float | None) -> None:
        """Observe the age of a message that starts, on its first receive; `None` is not known and not counted."""
        if seconds_since_sent is not None:
            self._lag["sent"].observe(seconds_since_sent)
        if seconds_since_published is not None:
            self._lag["published"].observe(seconds_since_published)

    def redelivered(self) -> None:
        """Count a message with a receive count above one."""
        self._redelivered.value += 1

    def duplicate(self) -> None:
        """Count a message that came again while in hand or already done."""
        self._duplicates.value += 1

    def unreadable_deadline(self) -> None:
        """Count an `expires_at` that is no time."""
        self._unreadable_deadlines.value += 1

    # Run

    def slots(self, size: int) -> None:
        """Say how many handler calls may run at once."""
        self._slots["size"].value = size

    def in_hand(self, count: int) -> None:
        """Say how many messages are received and not yet settled."""
        self._in_hand.value = count

    def started(self) -> None:
        """Count a handler call that begins; `handled` must follow."""
        self._running.value += 1

    def handled(self, seconds: float) -> None:
        """Count a handler call that has really ended, however it ended."""
        self._running.value -= 1
        self._handler.observe(seconds)

    def stuck(self, count: int) -> None:
        """Say how many handler calls ignore their cancellation."""
        self._stuck.value = count

    def idempotency_duplicate(self, of: str) -> None:
        """Count a message whose work is `done`, or `running` elsewhere."""
        self._idempotency_duplicates[of].value += 1

    def idempotency_call(self, call: str, seconds: float, *, has_failed: bool) -> None:
        """Count one call to the idempotency store."""
        self._idempotency_seconds[call].observe(seconds)
        self._idempotency_errors[call].value += int(has_failed)

    # Settle

    def settled(self, outcome: str, count: int = 1) -> None:
        """Count settled messages; raises `KeyError` for an outcome that is not in `OUTCOMES`."""
        self._settled[outcome].value += count

    def retried_in_place(self) -> None:
        """Count a failed message that is run again without another receive."""
        self._retried_in_place.value += 1

    def beats(self, ok: int, failed: int) -> None:
        """Count extended leases, and those whose extension failed this time."""
        self._beats["ok"].value += ok
        self._beats["failed"].value += failed

    def lease_lost(self, count: int = 1) -> None:
        """Count leases that ended under a message in hand."""
        self._leases_lost.value += count

    def settlement_blocked(self, is_blocked: bool) -> None:  # noqa: FBT001 - a gauge is told its state
        """Say whether intake is stopped because nothing can be settled."""
        self._settlement_blocked.value = int(is_blocked)

    def breaker_open(self, is_open: bool) -> None:  # noqa: FBT001 - a gauge is told its state
        """Say whether intake is stopped because the handlers' downstream is down."""
        self._breaker_open.value = int(is_open)
        self._breaker_opened.value += int(is_open)

    def held(self, count: int) -> None:
        """Say how many messages wait in place for the breaker to close."""
        self._held.value = count

    # The queue and its loops

    def api_call(self, operation: str, seconds: float, fault: Fault | None) -> None:
        """Count one call for the queue, to SQS or S3; an operation without a name of its own is `other`."""
        if operation not in self._api_call_seconds:
            operation = declared.OTHER
        self._api_calls[operation, fault or "ok"].value += 1
        self._api_call_seconds[operation].observe(seconds)

    def depth(self, depth: Depth) -> None:
        """Say what SQS says of the queue's size."""
        self._messages["visible"].value = depth.visible
        self._messages["in_flight"].value = depth.in_flight
        self._messages["delayed"].value = depth.delayed
        self._dead_letters.value = depth.dead_letters

    def loop_restarted(self, loop: str) -> None:
        """Count a loop that ended unasked and was started again; a loop without a name of its own is `other`."""
        self._loop_restarts[loop if loop in self._loop_restarts else declared.OTHER].value += 1

    def ready(self, is_ready: bool) -> None:  # noqa: FBT001 - a gauge is told its state
        """Say whether the queue is reached and can be settled."""
        self._ready.value = int(is_ready)

    # Read

    def snapshot(self) -> QueueSnapshot:
        """Return the queue's numbers at this moment."""
        return QueueSnapshot(
            ready=bool(self._ready.value),
            settlement_blocked=bool(self._settlement_blocked.value),
            breaker_open=bool(self._breaker_open.value),
            held=int(self._held.value),
            messages={state: reading.value for state, reading in self._messages.items()},
            dead_letters=self._dead_letters.value,
            received=int(self._received.value),
            empty_receives=int(self._empty_receives.value),
            redelivered=int(self._redelivered.value),
            duplicates=int(self._duplicates.value),
            receive_errors=_whole(self._receive_errors),
            in_hand=int(self._in_hand.value),
            slots=_whole(self._slots),
            stuck=int(self._stuck.value),
            receive_loops=int(self._receive_loops.value),
            handled=self._handler.count,
            handler_mean_seconds=self._handler.mean,
            settled=_whole(self._settled),
            retried_in_place=int(self._retried_in_place.value),
            leases_lost=int(self._leases_lost.value),
            api_calls=sum(int(calls.value) for calls in self._api_calls.values()),
            last_lag_seconds={since: spread.last for since, spread in self._lag.items()},
            seconds_since_last_message=self._since_last_message.value,
        )

    def lag_so_far(self) -> Spread:
        """Return a copy of the lags since publishing; since sending where that is unknown."""
        lag = self._lag["published"] if self._lag["published"].count else self._lag["sent"]
        return lag.since(None)

    def _seconds_since_last_message(self) -> float:
        return max(0.0, self._clock() - self._last_message)


def _whole(numbers: dict[str, Number]) -> dict[str, int]:
    return {label: int(number.value) for label, number in numbers.items()}
