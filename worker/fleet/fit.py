"""Whether a queue's handlers fit its settings: what is refused, and what is warned of. Neither side can tell alone."""

import difflib
from collections.abc import Iterator, Mapping

from worker.errors import ConfigError
from worker.router import Route, Router
from worker.settings import FleetSettings, QueueSettings
from worker.source import MAX_BATCH

__all__ = [
    "limits_of",
    "misfits",
    "refuse_misfits",
    "refuse_unknown_limits",
    "refuse_without_store",
    "unfit",
    "unused_limits",
]


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


def unfit(fleet: FleetSettings, routers: Mapping[str, Router]) -> Iterator[str]:
    """Yield what is warned of between the fleet and its handlers, queue by queue."""
    for name, router in routers.items():
        queue = fleet.queues[name]
        yield from misfits(queue, router)
        yield from _marks_end_too_early(fleet, queue, router)
        yield from _payloads_cannot_be_fetched(fleet, queue, router)


def limits_of(settings: FleetSettings, routers: Mapping[str, Router]) -> set[str]:
    """Return the names of the limits that queues and their handlers keep to."""
    of_queues = {settings.queues[name].limit for name in routers}
    of_handlers = {route.limit for router in routers.values() for route in router.routes}
    return {name for name in of_queues | of_handlers if name is not None}


def refuse_unknown_limits(settings: FleetSettings, routers: Mapping[str, Router]) -> None:
    """Raise `ConfigError` for the first handler whose limit is not declared."""
    for route in (route for router in routers.values() for route in router.routes):
        if route.limit is not None and route.limit not in settings.limits:
            nearest = difflib.get_close_matches(route.limit, settings.limits, n=1)
            there = ", ".join(settings.limits) or "none"
            advice = f"did you mean '{nearest[0]}'?" if nearest else f"add it to limits (there: {there})"
            raise ConfigError(
                f"{route.handler.label} has limit='{route.limit}', which is not declared in limits; {advice}"
            )


def unused_limits(settings: FleetSettings, routers: Mapping[str, Router]) -> Iterator[str]:
    """Yield a sentence for each limit that nothing keeps to, once all handlers are known."""
    if routers.keys() == settings.queues.keys():
        used = limits_of(settings, routers)
        for name in settings.limits:
            if name not in used:
                yield f'limits.{name} is declared, but no queue and no handler keeps to it: write limit: {name} at a queue, or limit="{name}" at a handler'


def _marks_end_too_early(fleet: FleetSettings, queue: QueueSettings, router: Router) -> Iterator[str]:
    """A duplicate may come for as long as its queue keeps it."""
    kept = fleet.idempotency.retention_seconds
    if kept < queue.retention_seconds and any(route.idempotency_key is not None for route in router.routes):
        yield (
            f"idempotency.retention_seconds is {kept}, less than the {queue.retention_seconds} s for which queue {queue.name} keeps "
            f"messages (queues.{queue.name}.retention_seconds): a duplicate that comes later is handled again; keep marks as long"
        )


def _payloads_cannot_be_fetched(fleet: FleetSettings, queue: QueueSettings, router: Router) -> Iterator[str]:
    """Payloads that lie where the queue may not fetch them; who reads by itself may be sent anywhere while no bucket is named."""
    buckets = queue.large_payloads.buckets
    if not buckets and all(route.takes_pointers for route in router.routes):
        return
    for subscription in queue.subscribe:
        bucket = fleet.topics[subscription.topic].large_payloads.bucket
        if bucket is not None and bucket not in buckets:
            yield (
                f"queues.{queue.name}.large_payloads.buckets does not name {bucket}, where {subscription.topic} puts large "
                f"payloads: their messages would be dead-lettered"
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
