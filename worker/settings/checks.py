"""What holds between the parts of a fleet: what is refused, and what is warned of."""

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from worker.settings.address import Address, environment_name
from worker.settings.base import refusal
from worker.settings.queue import QueueSettings
from worker.settings.topic import SubscriptionSettings

if TYPE_CHECKING:
    from worker.settings.fleet import FleetSettings

__all__ = ["refuse", "warnings"]

LAST_POLL_SECONDS = 5
"""What a drain needs beyond the longest poll: the poll may be answered at its very end."""
CUT_BEFORE_END_SECONDS = 3
"""How long before the end of the drain handlers are cancelled, so that their messages can be released."""
SPARE_RECEIVES = 2
DAY_SECONDS = 86_400
EXPIRING_SECONDS = 3600
"""A failure within the last hour of a message's retention dead-letters it."""


def refuse(fleet: "FleetSettings") -> None:
    """Raise the refusal of the first combination that cannot work."""
    _names_differ_in_the_environment("queues", fleet.queues)
    _names_differ_in_the_environment("topics", fleet.topics)
    _names_differ_in_the_environment("limits", fleet.limits)
    _outbox_topics_are_declared(fleet)
    for queue in fleet.queues.values():
        _limit_is_declared(fleet, queue)
        _drain_outlasts_the_poll(fleet, queue)
        _queue_is_in_the_region(fleet, queue)
        _dead_letters_are_not_consumed(fleet, queue)
        for position, subscription in enumerate(queue.subscribe):
            _subscription_can_deliver(fleet, queue, subscription, position)


def warnings(fleet: "FleetSettings") -> Iterator[str]:
    """Yield a sentence for each thing that works, but costs something that may not have been meant."""
    for queue in fleet.queues.values():
        for key, sentence in _queue_warnings(fleet, queue):
            yield f"queues.{queue.name}.{key} {sentence}"


def _names_differ_in_the_environment(section: str, members: Mapping[str, object]) -> None:
    seen: dict[str, str] = {}
    for name in members:
        variable = environment_name(name)
        if variable in seen:
            raise refusal(
                f"is {variable} in the environment, as {seen[variable]} is, but names must differ in more than -, . and case",
                (section, name),
                (section, seen[variable]),
            )
        seen[variable] = name


def _drain_outlasts_the_poll(fleet: "FleetSettings", queue: QueueSettings) -> None:
    wait, drain = queue.wait_time_seconds, fleet.drain_seconds
    if drain < wait + LAST_POLL_SECONDS:
        raise refusal(
            f"is {wait}, but must be at most {drain - LAST_POLL_SECONDS}, which is drain_seconds ({drain}) less {LAST_POLL_SECONDS}: "
            f"the last poll is never cut off, so shorten it or lengthen the drain",
            ("queues", queue.name, "wait_time_seconds"),
            "drain_seconds",
        )


def _queue_is_in_the_region(fleet: "FleetSettings", queue: QueueSettings) -> None:
    region = Address.of_queue(queue.address or queue.name).region
    if region is not None and fleet.aws.region is not None and region != fleet.aws.region:
        raise refusal(
            f"lies in {region}, but aws.region is {fleet.aws.region}, and a fleet runs in one region: correct one of them",
            ("queues", queue.name),
            ("aws", "region"),
        )


def _limit_is_declared(fleet: "FleetSettings", queue: QueueSettings) -> None:
    if queue.limit is not None and queue.limit not in fleet.limits:
        nearest = difflib.get_close_matches(queue.limit, fleet.limits, n=1)
        advice = (
            f"did you mean {nearest[0]}?"
            if nearest
            else f"add it to limits (there: {', '.join(fleet.limits) or 'none'})"
        )
        raise refusal(f"is {queue.limit}, but must be declared in limits; {advice}", ("queues", queue.name, "limit"))


def _dead_letters_are_not_consumed(fleet: "FleetSettings", queue: QueueSettings) -> None:
    taken: list[tuple[tuple[str | int, ...], str]] = [
        (("subscribe", position, "dead_letter"), Address.of_queue(subscription.dead_letter).name)
        for position, subscription in enumerate(queue.subscribe)
        if subscription.dead_letter is not None
    ]
    if queue.dead_letter != "none":
        taken.append((("dead_letter", "queue"), queue.dead_letter.name))
    for key, name in taken:
        if name in fleet.queues:
            raise refusal(
                f"is {name}, which is also in queues, but must be a queue that this fleet does not consume: "
                f"name another one, or remove it from queues",
                ("queues", queue.name, *key),
                ("queues", name),
            )


def _outbox_topics_are_declared(fleet: "FleetSettings") -> None:
    for position, name in enumerate(fleet.outbox.names()):
        if name not in fleet.topics:
            raise refusal(
                f"is {name}, but must be declared in topics; {_topic_advice(fleet, name)}",
                ("outbox", "topics", position),
            )


def _topic_advice(fleet: "FleetSettings", name: str) -> str:
    nearest = difflib.get_close_matches(name, fleet.topics, n=1)
    there = ", ".join(fleet.topics) or "none"
    return f"did you mean {nearest[0]}?" if nearest else f"add it to topics (there: {there})"


def _subscription_can_deliver(
    fleet: "FleetSettings", queue: QueueSettings, subscription: SubscriptionSettings, position: int
) -> None:
    path = ("queues", queue.name, "subscribe", position)
    topic = fleet.topics.get(subscription.topic)
    if topic is None:
        advice = _topic_advice(fleet, subscription.topic)
        raise refusal(f"is {subscription.topic}, but must be declared in topics; {advice}", (*path, "topic"))
    if queue.is_fifo and not topic.is_fifo:
        raise refusal(
            f"is {topic.name}, a standard topic, but SNS delivers to a FIFO queue from FIFO topics only: "
            f"name a topic that ends in .fifo",
            (*path, "topic"),
        )
    if subscription.dead_letter is not None and Address.of_queue(subscription.dead_letter).is_fifo != topic.is_fifo:
        kind = "FIFO" if topic.is_fifo else "standard"
        raise refusal(
            f"is {subscription.dead_letter}, but must be a {kind} queue, as {topic.name} is a {kind} topic",
            (*path, "dead_letter"),
        )


def _breaker_warning(queue: QueueSettings) -> Iterator[tuple[str, str]]:
    """A breaker that handlers can never trip by running into their time limit."""
    timeout = queue.handler_timeout_seconds
    if queue.breaker == "none" or timeout is None:
        return
    possible = int(queue.max_concurrency * queue.breaker_window_seconds / timeout)
    if possible < queue.breaker.failures:
        yield (
            "breaker.window_seconds",
            (
                f"is {queue.breaker_window_seconds:g}, in which no more than {possible} handler calls can run into "
                f"handler_timeout_seconds ({timeout:g}) at concurrency {queue.max_concurrency}, and "
                f"{queue.breaker.failures} failures open the breaker: time limits alone never will; lengthen it or lower calls"
            ),
        )


def _payload_warnings(fleet: "FleetSettings", queue: QueueSettings) -> Iterator[tuple[str, str]]:
    """Payloads that are gone before their messages are."""
    for subscription in queue.subscribe:
        large = fleet.topics[subscription.topic].large_payloads
        if large.bucket is None:
            continue
        if large.expire_days is not None and large.expire_days * DAY_SECONDS < queue.retention_seconds:
            yield (
                "retention_seconds",
                (
                    f"is {queue.retention_seconds}, longer than the {large.expire_days} days after which {large.bucket} "
                    f"deletes payloads: what is received later would be dead-lettered"
                ),
            )


def _queue_warnings(fleet: "FleetSettings", queue: QueueSettings) -> Iterator[tuple[str, str]]:
    yield from _payload_warnings(fleet, queue)
    timeout, left = queue.handler_timeout_seconds, fleet.drain_seconds - CUT_BEFORE_END_SECONDS
    if timeout is not None and timeout > left:
        yield (
            "handler_timeout_seconds",
            (
                f"is {timeout:g}, more than the {left} s that drain_seconds ({fleet.drain_seconds}) leaves to handlers: "
                f"each deployment may cancel work and cost it a receive"
            ),
        )
    if queue.dead_letter != "none" and queue.dead_letter.max_receive_count < queue.attempts + SPARE_RECEIVES:
        yield (
            "dead_letter.max_receive_count",
            (
                f"is {queue.dead_letter.max_receive_count}, less than attempts ({queue.attempts}) and {SPARE_RECEIVES}: "
                f"a drain or a lost lease may dead-letter a message that never failed"
            ),
        )
    if queue.retention_seconds <= EXPIRING_SECONDS:
        yield (
            "retention_seconds",
            (
                f"is {queue.retention_seconds}, at most an hour: every failure is dead-lettered at once, as its message is about to expire"
            ),
        )
    elif queue.retention_seconds <= queue.max_lease_seconds:
        yield (
            "retention_seconds",
            (
                f"is {queue.retention_seconds}, at most max_lease_seconds ({queue.max_lease_seconds}): "
                f"SQS may delete a message whose handler still runs"
            ),
        )
    yield from _breaker_warning(queue)
    if queue.wait_time_seconds == 0:
        yield "wait_time_seconds", "is 0: an empty queue is asked again and again, and every call is paid for"
