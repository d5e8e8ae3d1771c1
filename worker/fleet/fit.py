"""Whether a queue's handlers fit its settings: what is refused, and what is warned of. Neither side can tell alone."""

from collections.abc import Iterator

from worker.errors import ConfigError
from worker.router import Route, Router
from worker.settings import FleetSettings, QueueSettings
from worker.source import MAX_BATCH

__all__ = ["misfits", "refuse_misfits", "refuse_without_store"]


def refuse_misfits(queue: QueueSettings, router: Router) -> None:
    """Raise `ConfigError` for the first handler that cannot work on the queue."""
    for route in router.routes:
        _batch_fits(queue, route)
        _attempts_can_be_used(queue, route)


def refuse_without_store(fleet: FleetSettings, router: Router) -> None:
    """Raise `ConfigError` for the first handler whose work nobody could mark."""
    for route in router.routes:
        if route.idempotency_key is not None and fleet.idempotency.store is None:
            raise ConfigError(
                f"{route.handler.label} has an idempotency_key, but the fleet has no store for it: set idempotency.store, for "
                f"one machine to sqlite:///var/idempotency.sqlite"
            )


def misfits(queue: QueueSettings, router: Router) -> Iterator[str]:
    """Yield a sentence for each handler that works, but costs something that may not have been meant."""
    for route in router.routes:
        if route.attempts is not None and route.attempts > queue.attempts and queue.dead_letter != "none":
            count = queue.dead_letter.max_receive_count
            yield (
                f"{route.handler.label} has attempts={route.attempts}, more than attempts ({queue.attempts}) of queue "
                f"{queue.name}, whose max_receive_count ({count}) is only {count - route.attempts} above that, for drains "
                f"and lost leases: raise the queue's attempts, and max_receive_count with it"
            )
        if route.timeout_seconds is not None and route.timeout_seconds >= queue.max_lease_seconds:
            yield (
                f"{route.handler.label} has timeout={route.timeout_seconds:g}, but max_lease_seconds "
                f"({queue.max_lease_seconds}) of queue {queue.name} ends it first: lower one or raise the other"
            )


def _batch_fits(queue: QueueSettings, route: Route) -> None:
    if (batch := route.batch) is None:
        return
    if queue.is_fifo and batch.size > MAX_BATCH:
        raise ConfigError(
            f"{route.handler.label} asks for batches of {batch.size}, but queue {queue.name} is FIFO, where a batch is at "
            f"most {MAX_BATCH} messages of one group: write Batch({MAX_BATCH}), or use a standard queue"
        )
    limit = route.timeout_seconds or queue.handler_timeout_seconds or 0
    if batch.window_seconds + limit >= queue.max_lease_seconds:
        raise ConfigError(
            f"{route.handler.label} collects batches for window_seconds={batch.window_seconds:g}"
            + (f" and handles them for up to {limit:g} s" if limit else "")
            + f", but max_lease_seconds of queue {queue.name} is {queue.max_lease_seconds}, after which a message is given "
            f"back: shorten the window or lengthen the lease"
        )


def _attempts_can_be_used(queue: QueueSettings, route: Route) -> None:
    if queue.dead_letter == "none" or route.attempts is None or queue.is_fifo:  # a FIFO head is tried again in place
        return
    count = queue.dead_letter.max_receive_count
    if route.attempts > count:
        raise ConfigError(
            f"{route.handler.label} has attempts={route.attempts}, but SQS moves a message of queue {queue.name} to its "
            f"dead-letter queue after {count} receives (dead_letter.max_receive_count): lower attempts, or raise that count"
        )
