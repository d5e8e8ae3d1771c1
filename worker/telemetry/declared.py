"""Every metric, declared once: name, kind, unit, closed label values, meaning. The exposition and the reference page read this."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from worker.errors import Fault

__all__ = ["ALL", "LOOPS", "OPERATIONS", "OTHER", "OUTCOMES", "Declared", "Kind"]


class Kind(StrEnum):
    """Prometheus's metric types, as far as they are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"  # count and sum only


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric. Its label values are closed sets, so every series exists, at 0, from the start."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Label to its possible values, besides `queue`; an empty tuple means: known when the process starts."""
    buckets: tuple[float, ...] = ()
    is_per_queue: bool = True


OTHER = "other"
"""The label value of what a closed set does not name."""

OUTCOMES = ("ack", "retry", "dead_letter", "release", "abandon", "expired")
OPERATIONS = (
    "receive_message",
    "delete_message_batch",
    "change_message_visibility_batch",
    "send_message",
    "get_queue_url",
    "get_queue_attributes",
    "get_object",
    "delete_object",
    OTHER,
)
IDEMPOTENCY_CALLS = ("open", "begin", "finish", "release", "renew", "prune")
LOOPS = ("receive", "lease", "survey", OTHER)
_FAULTS = tuple(fault.value for fault in Fault)

_LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 10800, 43200)
_HANDLER_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_LOOP_LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# The three to watch: depth, dead letters, lag. Then what rises when nothing is consumed.
QUEUE_MESSAGES = Declared(
    "longshore_queue_messages",
    Kind.GAUGE,
    "messages",
    "Messages in the queue, as SQS estimates them. Every replica reports the same queue: take the maximum, not the sum.",
    {"state": ("visible", "in_flight", "delayed")},
)
DEAD_LETTER_MESSAGES = Declared(
    "longshore_dead_letter_messages",
    Kind.GAUGE,
    "messages",
    "Messages that wait in the dead-letter queue. Absent when there is none or it cannot be read.",
)
LAG = Declared(
    "longshore_lag_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Age of a message when its handling starts, first receives only: since SQS took it in, and since it was published.",
    {"since": ("sent", "published")},
    _LAG_BUCKETS,
)
SINCE_LAST_MESSAGE = Declared(
    "longshore_seconds_since_last_message",
    Kind.GAUGE,
    "seconds",
    "Time since the last receive that brought a message; it rises when nothing is consumed.",
)

# The way of a message, arrow by arrow.
RECEIVED = Declared("longshore_received_total", Kind.COUNTER, "messages", "Messages received, redeliveries included.")
EMPTY_RECEIVES = Declared(
    "longshore_empty_receives_total", Kind.COUNTER, "calls", "Receives that came back without a message."
)
RECEIVE_ERRORS = Declared(
    "longshore_receive_errors_total", Kind.COUNTER, "calls", "Receives that failed, by cause.", {"fault": _FAULTS}
)
RECEIVES_GIVEN_UP = Declared(
    "longshore_receives_given_up_total",
    Kind.COUNTER,
    "calls",
    "Receives that were still open when the drain ended; SQS may have given them messages.",
)
REDELIVERED = Declared(
    "longshore_redelivered_total", Kind.COUNTER, "messages", "Messages received with a receive count above one."
)
DUPLICATES = Declared(
    "longshore_duplicates_total",
    Kind.COUNTER,
    "messages",
    "Messages that came again while in hand or already done; they are not run again.",
)
UNREADABLE_DEADLINES = Declared(
    "longshore_unreadable_deadlines_total",
    Kind.COUNTER,
    "times read",
    "An expires_at that is no time: its event never counts as too late.",
)
IN_HAND = Declared("longshore_in_hand", Kind.GAUGE, "messages", "Messages received and not yet settled.")
SLOTS = Declared(
    "longshore_slots",
    Kind.GAUGE,
    "handler calls",
    "Handler calls that may run at once (size) and that run now (in_use).",
    {"state": ("size", "in_use")},
)
HANDLER = Declared(
    "longshore_handler_seconds", Kind.HISTOGRAM, "seconds", "Duration of a handler call.", buckets=_HANDLER_BUCKETS
)
STUCK = Declared(
    "longshore_stuck_handlers",
    Kind.GAUGE,
    "handler calls",
    "Handler calls that ignore their cancellation and keep their slot.",
)
SETTLED = Declared(
    "longshore_settled_total", Kind.COUNTER, "messages", "Messages settled, by outcome.", {"outcome": OUTCOMES}
)
RETRIED_IN_PLACE = Declared(
    "longshore_retried_in_place_total",
    Kind.COUNTER,
    "messages",
    "Failed messages that were run again without another receive: heads of FIFO groups, and what an open breaker holds.",
)
LEASE_BEATS = Declared(
    "longshore_lease_beats_total",
    Kind.COUNTER,
    "messages",
    "Lease extensions, one per message.",
    {"result": ("ok", "failed")},
)
LEASES_LOST = Declared(
    "longshore_leases_lost_total",
    Kind.COUNTER,
    "messages",
    "Leases that ended under a message in hand; someone else may run it too.",
)

# What the engine does, costs and refuses.
API_CALLS = Declared(
    "longshore_api_calls_total",
    Kind.COUNTER,
    "calls",
    "Calls for the queue, by result: to SQS, and to S3 for large payloads (`get_object`, `delete_object`); this is what AWS bills.",
    {"operation": OPERATIONS, "result": ("ok", *_FAULTS)},
)
API_CALL_SECONDS = Declared(
    "longshore_api_call_seconds",
    Kind.SUMMARY,
    "seconds",
    "Duration of these calls; a receive may take as long as its long poll.",
    {"operation": OPERATIONS},
)
RECEIVE_LOOPS = Declared(
    "longshore_receive_loops", Kind.GAUGE, "loops", "Receive loops that run; one when the queue is idle."
)
LOOP_RESTARTS = Declared(
    "longshore_loop_restarts_total",
    Kind.COUNTER,
    "restarts",
    "Loops that ended unasked and were started again.",
    {"loop": LOOPS},
)
READY = Declared("longshore_ready", Kind.GAUGE, "0 or 1", "Whether the queue is reached and settlement works.")
SETTLEMENT_BLOCKED = Declared(
    "longshore_settlement_blocked",
    Kind.GAUGE,
    "0 or 1",
    "Whether intake is stopped because deletes or extensions do not succeed.",
)

BREAKER_OPEN = Declared(
    "longshore_breaker_open",
    Kind.GAUGE,
    "0 or 1",
    "Whether intake is stopped because what the handlers depend on is down.",
)
BREAKER_OPENED = Declared("longshore_breaker_opened_total", Kind.COUNTER, "times", "How often the breaker has opened.")
HELD = Declared(
    "longshore_held",
    Kind.GAUGE,
    "messages",
    "Messages that wait in place, their leases kept, for the breaker to close.",
)
IDEMPOTENCY_DUPLICATES = Declared(
    "longshore_idempotency_duplicates_total",
    Kind.COUNTER,
    "messages",
    "Messages whose idempotency key was marked: as done, so they were acked, or as running, so they wait.",
    {"of": ("done", "running")},
)
IDEMPOTENCY_ERRORS = Declared(
    "longshore_idempotency_errors_total",
    Kind.COUNTER,
    "calls",
    "Calls that the idempotency store did not answer; meanwhile nothing is received, and what is in hand waits.",
    {"call": IDEMPOTENCY_CALLS},
)
IDEMPOTENCY_SECONDS = Declared(
    "longshore_idempotency_call_seconds",
    Kind.SUMMARY,
    "seconds",
    "Duration of calls to the idempotency store; messages share them.",
    {"call": IDEMPOTENCY_CALLS},
)

# The process.
INFO = Declared(
    "longshore_info",
    Kind.GAUGE,
    "always 1",
    "Which service and which version this is.",
    {"service": (), "version": ()},
    is_per_queue=False,
)
EVENT_LOOP_LAG = Declared(
    "longshore_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "How late the event loop ran a timer; high values mean that something blocks it.",
    buckets=_LOOP_LAG_BUCKETS,
    is_per_queue=False,
)
DRAINING = Declared(
    "longshore_draining", Kind.GAUGE, "0 or 1", "Whether the process is shutting down.", is_per_queue=False
)
DRAIN_SECONDS = Declared(
    "longshore_drain_seconds",
    Kind.GAUGE,
    "seconds",
    "How long the process has been draining; 0 when it is not.",
    is_per_queue=False,
)
LOG_LINES_DROPPED = Declared(
    "longshore_log_lines_dropped_total",
    Kind.COUNTER,
    "lines",
    "Log lines lost because the output did not take them (full disk, closed pipe).",
    is_per_queue=False,
)

# Limits, each as this process sees it.
LIMIT_PERMITS = Declared(
    "longshore_limit_permits",
    Kind.GAUGE,
    "permits",
    "Permits of a limit that this process holds; over a fleet, their sum is at most the limit's concurrency.",
    {"limit": ()},
    is_per_queue=False,
)
LIMIT_WAITS = Declared(
    "longshore_limit_waits_total",
    Kind.COUNTER,
    "waits",
    "Receives and handler calls that had to wait for a limit.",
    {"limit": ()},
    is_per_queue=False,
)
LIMIT_REFUSALS = Declared(
    "longshore_limit_refusals_total",
    Kind.COUNTER,
    "messages",
    "Messages that were given back because they had waited for their handler's limit for too long.",
    {"limit": ()},
    is_per_queue=False,
)
LIMIT_PERMITS_LOST = Declared(
    "longshore_limit_permits_lost_total",
    Kind.COUNTER,
    "permits",
    "Permits that ended before their message did, whose handler was cancelled.",
    {"limit": ()},
    is_per_queue=False,
)
LIMIT_STORE_ERRORS = Declared(
    "longshore_limit_store_errors_total",
    Kind.COUNTER,
    "calls",
    "Calls of a limit's store that failed.",
    {"limit": ()},
    is_per_queue=False,
)

# Outboxes, each topic's as this process sees it.
OUTBOX_SENT = Declared(
    "longshore_outbox_sent_total",
    Kind.COUNTER,
    "events",
    "Events of the outbox that SNS has taken.",
    {"topic": ()},
    is_per_queue=False,
)
OUTBOX_REFUSED = Declared(
    "longshore_outbox_refused_total",
    Kind.COUNTER,
    "events",
    "Events of the outbox that SNS will never take; the column `refusal` says why.",
    {"topic": ()},
    is_per_queue=False,
)
OUTBOX_WAITING = Declared(
    "longshore_outbox_waiting",
    Kind.GAUGE,
    "events",
    "Events that wait in the outbox, counted twice a minute by whoever sends them. Every relay counts the same table: "
    "take the maximum, not the sum. Absent while nobody knows.",
    {"topic": ()},
    is_per_queue=False,
)
OUTBOX_OLDEST = Declared(
    "longshore_outbox_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    "For how long the first of them has waited when they were counted; 0 when nothing waited.",
    {"topic": ()},
    is_per_queue=False,
)

ALL: tuple[Declared, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Declared))
