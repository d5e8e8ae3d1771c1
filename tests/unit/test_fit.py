"""What a queue's settings and its handlers cannot do together is refused or warned of, by name (X1)."""

from collections.abc import Sequence
from typing import Any

import pytest

from worker import Batch, ConfigError, Message, Router, S3Pointer
from worker.fleet.fit import misfits, refuse_misfits, refuse_without_store, unfit
from worker.settings import FleetSettings, QueueSettings


def queue(name: str = "orders", **settings: Any) -> QueueSettings:
    return QueueSettings.model_validate({"name": name, "handlers": "shop:router", **settings})


def router(batch: Batch | None = None, **options: Any) -> Router:
    made = Router()
    if batch is None:

        @made.on("*", **options)
        async def handle(_: Message[Any]) -> None: ...

    else:

        @made.on("*", batch=batch, **options)
        async def handle_many(_: Sequence[Message[Any]]) -> None: ...

    return made


@pytest.mark.parametrize(
    ("settings", "handlers", "told"),
    [
        (
            queue("payments.fifo"),
            router(Batch(11)),
            ["batches of 11", "payments.fifo is FIFO", "at most 10", "write Batch(10)"],
        ),
        (
            queue(max_lease_seconds=600),
            router(Batch(5, window_seconds=600)),
            ["window_seconds=600", "max_lease_seconds of queue orders is 600", "shorten the window"],
        ),
        (
            queue(max_lease_seconds=600, handler_timeout_seconds=500),
            router(Batch(5, window_seconds=100)),
            ["handles them for up to 500 s", "max_lease_seconds of queue orders is 600"],
        ),
        (
            queue(attempts=3),
            router(attempts=11),
            ["attempts=11", "queue orders", "after 10 receives", "lower attempts"],
        ),
    ],
    ids=["a FIFO batch above ten", "a window longer than the lease", "window and time limit", "attempts above the net"],
)
def test_what_cannot_work_is_refused(settings: QueueSettings, handlers: Router, told: list[str]) -> None:
    """One sentence names the handler, its place, the queue, what was found and what to do."""
    with pytest.raises(ConfigError) as refusal:
        refuse_misfits(settings, handlers)
    for part in ["handler `", "test_fit.py:", *told]:
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "handlers"),
    [
        (queue("payments.fifo"), router(Batch(10))),
        (queue(), router(Batch(5000, window_seconds=60))),
        (queue(attempts=3), router(attempts=10)),
        (queue(attempts=3, dead_letter="none"), router(attempts=500)),
        (queue("payments.fifo", attempts=3), router(attempts=500)),
    ],
)
def test_what_can_work_is_not_refused(settings: QueueSettings, handlers: Router) -> None:
    refuse_misfits(settings, handlers)


def test_attempts_above_the_queues_are_warned_of() -> None:
    """They eat up what drains and lost leases need."""
    (warning,) = misfits(queue(attempts=3), router(attempts=9))
    assert "attempts=9, more than attempts (3) of queue orders" in warning
    assert "max_receive_count (10) is only 1 above that" in warning


def test_a_time_limit_above_the_lease_is_warned_of() -> None:
    (warning,) = misfits(queue(max_lease_seconds=60), router(timeout=60))
    assert "timeout=60, but max_lease_seconds (60) of queue orders" in warning


def test_what_fits_is_not_warned_of() -> None:
    assert list(misfits(queue(), router(attempts=3, timeout=5))) == []


def test_an_idempotency_key_needs_a_store() -> None:
    """A handler that counts on being run once is not started without (I1, X1)."""
    fleet = {"queues": {"orders": {"name": "orders", "handlers": "shop:router"}}}
    keyed = router(idempotency_key="order_id")
    with pytest.raises(
        ConfigError, match=r"has an idempotency_key, but the fleet has no store for it: set idempotency\.store"
    ):
        refuse_without_store(FleetSettings.model_validate(fleet), keyed)
    stored = FleetSettings.model_validate({**fleet, "idempotency": {"store": "sqlite:///var/marks.sqlite"}})
    refuse_without_store(stored, keyed)
    refuse_without_store(FleetSettings.model_validate(fleet), router())


def marked_for(seconds: int) -> FleetSettings:
    queues = {"orders": {"handlers": "shop:router", "retention_seconds": 1_209_600}}
    marks = {"store": "sqlite:///var/marks.sqlite", "retention_seconds": seconds}
    return FleetSettings.model_validate({"queues": queues, "idempotency": marks})


def test_marks_that_end_before_their_duplicates_are_warned_of() -> None:
    """By name and number, and only for a queue that marks anything (I1)."""
    keyed = {"orders": router(idempotency_key="order_id")}
    (warning,) = unfit(marked_for(60), keyed)
    assert warning.startswith(
        "idempotency.retention_seconds is 60, less than the 1209600 s for which queue orders keeps"
    )
    assert list(unfit(marked_for(60), {"orders": router()})) == []
    assert list(unfit(marked_for(1_209_600), keyed)) == []


def lazy_router() -> Router:
    made = Router()

    @made.on("*")
    async def index(_: Message[S3Pointer]) -> None: ...

    return made


@pytest.mark.parametrize(
    ("buckets", "handlers", "is_warned_of"),
    [
        ([], router(), True),
        ([], lazy_router(), False),
        (["theirs"], router(), True),
        (["theirs"], lazy_router(), True),
        (["ours"], router(), False),
    ],
    ids=["no bucket", "a reader by itself", "another bucket", "a reader by itself, another bucket", "its bucket"],
)
def test_payloads_where_the_queue_may_not_read_are_warned_of(
    buckets: list[str], handlers: Router, *, is_warned_of: bool
) -> None:
    """Their messages would be dead-lettered (E7)."""
    queue = {"handlers": "shop:router", "large_payloads": {"buckets": buckets}, "subscribe": [{"topic": "big"}]}
    topics = {"big": {"large_payloads": {"bucket": "ours"}}}
    warnings = list(
        unfit(FleetSettings.model_validate({"queues": {"orders": queue}, "topics": topics}), {"orders": handlers})
    )
    assert [each.partition(", where big")[0] for each in warnings] == (
        ["queues.orders.large_payloads.buckets does not name ours"] if is_warned_of else []
    )
