"""Settings of one queue: defaults, bounds, and the combinations that are refused."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from worker.settings import DeadLetterSettings, FleetSettings, QueueSettings

Load = Callable[..., FleetSettings]
Refuse = Callable[..., str]


def fleet(*lines: str, name: str = "orders") -> str:
    """Write a fleet of one queue with these lines under it."""
    return "\n".join((f"queues:\n  {name}:\n    handlers: app:router", *(f"    {line}" for line in lines)))


def test_a_queue_needs_its_handlers_only(loaded: Load) -> None:
    """Every other number has a default that works, and the dead-letter queue follows from the name (S4)."""
    queue = loaded(fleet()).queues["orders"]
    assert (queue.name, queue.address, queue.is_fifo) == ("orders", "orders", False)
    assert (queue.concurrency, queue.visibility_timeout_seconds, queue.wait_time_seconds) == (10, 30, 20)
    assert (queue.handler_timeout_seconds, queue.max_lease_seconds, queue.attempts) == (None, 3600, 3)
    assert (queue.retry.base_seconds, queue.retry.max_seconds) == (5, 900)
    assert queue.dead_letter == DeadLetterSettings(queue="orders-dlq", max_receive_count=10)
    assert (queue.unknown_event, queue.envelope, queue.subscribe, queue.external) == ("retry", "auto", (), False)


def test_a_fifo_queue_has_a_fifo_dead_letter_queue(loaded: Load) -> None:
    queue = loaded(fleet(name="orders.fifo")).queues["orders.fifo"]
    assert queue.is_fifo
    assert queue.dead_letter == DeadLetterSettings(queue="orders-dlq.fifo", max_receive_count=10)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dead_letter: {}", DeadLetterSettings(queue="orders-dlq", max_receive_count=12)),
        ("dead_letter: {queue: elsewhere}", DeadLetterSettings(queue="elsewhere", max_receive_count=12)),
        ("dead_letter: {max_receive_count: 20}", DeadLetterSettings(queue="orders-dlq", max_receive_count=20)),
        ("dead_letter: none", "none"),
    ],
)
def test_what_a_dead_letter_leaves_open_follows_from_the_queue(loaded: Load, line: str, expected: object) -> None:
    """`max_receive_count` is `attempts + 7` unless it is said (S4)."""
    assert loaded(fleet("attempts: 5", line)).queues["orders"].dead_letter == expected


@pytest.mark.parametrize(
    "address",
    ["arn:aws:sqs:eu-west-1:123456789012:orders", "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"],
)
def test_a_queue_given_by_arn_or_url_keeps_its_address(loaded: Load, address: str) -> None:
    queue = loaded(fleet(name=f"'{address}'")).queues["orders"]
    assert (queue.name, queue.address) == ("orders", address)


def test_a_queue_can_be_made_in_code() -> None:
    """Tests and tools need no file."""
    queue = QueueSettings(
        name="orders.fifo", handlers="app:router", attempts=1, dead_letter=DeadLetterSettings(max_receive_count=5)
    )
    assert queue.dead_letter == DeadLetterSettings(queue="orders-dlq.fifo", max_receive_count=5)
    with pytest.raises(ValidationError, match="frozen"):
        queue.attempts = 2  # type: ignore[misc]  # that it cannot be is the point
    with pytest.raises(ValidationError, match="visibility_timeout_seconds"):
        QueueSettings(name="orders", handlers="app:router", max_lease_seconds=10)


P = "fleet.yaml: queues.orders."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("concurrency: 0", f"{P}concurrency is 0, but must be a whole number from 1 to 1000"),
        ("concurrency: 1001", f"{P}concurrency is 1001, but must be a whole number from 1 to 1000"),
        ("concurrency: four", f"{P}concurrency is 'four', but must be a whole number from 1 to 1000"),
        ("concurrency: '4'", f"{P}concurrency is '4', but must be a whole number from 1 to 1000"),
        ("concurrency: true", f"{P}concurrency is true, but must be a whole number from 1 to 1000"),
        ("concurrency: 4.0", f"{P}concurrency is 4.0, but must be a whole number from 1 to 1000"),
        ("concurrency: [4]", f"{P}concurrency is a list, but must be a whole number from 1 to 1000"),
        ("concurrency:", f"{P}concurrency is empty, but must be a whole number from 1 to 1000"),
        (
            "visibility_timeout_seconds: 1",
            f"{P}visibility_timeout_seconds is 1, but must be a whole number from 2 to 43200: leases are extended at a third",
        ),
        (
            "visibility_timeout_seconds: 43201",
            f"{P}visibility_timeout_seconds is 43201, but must be a whole number from",
        ),
        ("wait_time_seconds: 21", f"{P}wait_time_seconds is 21, but must be a whole number from 0 to 20: SQS waits no"),
        (
            "handler_timeout_seconds: 0",
            f"{P}handler_timeout_seconds is 0, but must be a number above 0, at most 43140, or",
        ),
        ("handler_timeout_seconds: 1e999", f"{P}handler_timeout_seconds is inf, but must be a number above 0"),
        (
            "max_lease_seconds: 43141",
            f"{P}max_lease_seconds is 43141, but must be a whole number from 2 to 43140: SQS ends",
        ),
        ("attempts: 0", f"{P}attempts is 0, but must be a whole number from 1 to 100"),
        ("retention_seconds: 59", f"{P}retention_seconds is 59, but must be a whole number from 60 to 1209600"),
        ("unknown_event: drop", f"{P}unknown_event is 'drop', but must be one of retry, dead_letter, ack"),
        ("envelope: true", f"{P}envelope is true, but must be one of auto, sns, raw"),
        ("external: 'yes'", f"{P}external is 'yes', but must be true or false"),
        ("retry: 5", f"{P}retry is 5, but must be a mapping with the keys base_seconds, max_seconds"),
        ("retry: {base_seconds: 0}", f"{P}retry.base_seconds is 0, but must be a whole number from 1 to 43140"),
        (
            "dead_letter:",
            f"{P}dead_letter is empty, but must be a mapping with the keys queue, max_receive_count or none",
        ),
        ("dead_letter: orders-dlq", f"{P}dead_letter is 'orders-dlq', but must be a mapping with the keys queue,"),
        (
            "dead_letter: {max_receive_count: 0}",
            f"{P}dead_letter.max_receive_count is 0, but must be a whole number from 1",
        ),
        ("dead_letter: {queue: a b}", f"{P}dead_letter.queue is 'a b', but must be a queue's name of 1 to 80 letters"),
        ("dead_letter: {queue: 5}", f"{P}dead_letter.queue is 5, but must be text"),
        ("tags: {team: 5}", f"{P}tags.team is 5, but must be text"),
        ("tags: {5: five}", f"{P}tags has the key 5, but a key must be text: put it in quotes"),
        ("alarms: pages", f"{P}alarms is 'pages', but must be a list of text"),
        ("alarms: ['a b']", f"{P}alarms is 'a b', but must be a topic's name"),
        ("kms_key: ''", f"{P}kms_key is '', but must be text, or null"),
        ("subscribe: {topic: a}", f"{P}subscribe is a mapping, but must be a list of"),
        ("subscribe: [{}]", f"{P}subscribe[0].topic is missing, but must be text"),
        ("subscribe: [a]", f"{P}subscribe[0] is 'a', but must be a mapping with the keys topic, raw,"),
        ("subscribe: [{topic: a b}]", f"{P}subscribe[0].topic is 'a b', but must be a topic's name"),
        (
            "subscribe: [{topic: a, dead_letter: a b}]",
            f"{P}subscribe[0].dead_letter is 'a b', but must be a queue's name",
        ),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_what_was_found_and_what_is_allowed(
    refused: Refuse, line: str, said: str
) -> None:
    """One sentence: the key, what was found, what is allowed, and why where SQS decides (X1)."""
    assert refused(fleet(line)).startswith(said)


@pytest.mark.parametrize(
    "handlers", ["app", "app:", ":router", "app.py:router:x", "app/x:router", "1app:router", "app:a.b"]
)
def test_handlers_are_module_and_attribute(refused: Refuse, handlers: str) -> None:
    said = refused(f"queues: {{orders: {{handlers: '{handlers}'}}}}")
    assert f"handlers is '{handlers}', but must be module:attribute, such as worker.handlers.orders:processing" in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["max_lease_seconds: 29"], "max_lease_seconds is 29, but must be at least visibility_timeout_seconds (30)"),
        (["visibility_timeout_seconds: 7200"], "max_lease_seconds is 3600, but must be at least visibility_timeout_seconds (7200)"),
        (["handler_timeout_seconds: 3600"], "handler_timeout_seconds is 3600, but must be below max_lease_seconds (3600)"),
        (["retry: {base_seconds: 901}"], "retry.base_seconds is 901, but must be at most max_seconds (900)"),
        (["dead_letter: {max_receive_count: 2}"], "dead_letter.max_receive_count is 2, but must be at least attempts (3)"),
        (["dead_letter: {queue: orders}"], "dead_letter.queue is orders, the queue itself, but must be another queue"),
        (
            ["dead_letter: {queue: 'arn:aws:sqs:us-east-1:123456789012:orders'}"],
            "dead_letter.queue is orders, the queue itself, but must be another queue",
        ),
        (["dead_letter: {queue: d.fifo}"], "dead_letter.queue is d.fifo, a FIFO queue, but SQS wants a standard one"),
        (["envelope: sns", "subscribe: [{topic: t, raw: true}]"], "envelope is sns, but the subscription to t says raw: true"),
        (["envelope: raw", "subscribe: [{topic: t}]"], "envelope is raw, but the subscription to t says raw: false"),
        (["subscribe: [{topic: t, filter_scope: MessageBody}]"], "subscribe[0].filter_scope is MessageBody, but has no effect"),
        (["subscribe: [{topic: t, filter: {event_type: a.b}}]"], "subscribe[0].filter.event_type is 'a.b', but must be a list"),
        (["subscribe: [{topic: t, filter: {a: {b: [c]}}}]"], "subscribe[0].filter.a is a mapping, but must be a list"),
        (["subscribe: [{topic: t, filter: {a: []}}]"], "subscribe[0].filter.a is an empty list, but must be a list of at"),
        (["subscribe: [{topic: t, filter: {}}]"], "subscribe[0].filter is an empty mapping, but must be a mapping"),
    ],
)  # fmt: skip
def test_a_combination_that_cannot_work_is_refused(refused: Refuse, lines: list[str], said: str) -> None:
    """What has no effect or cannot survive is an error, not a surprise in production (S4, L5, X1)."""
    assert refused(fleet(*lines)).startswith(P + said)


def test_a_standard_queue_cannot_be_the_dead_letter_queue_of_a_fifo_queue(refused: Refuse) -> None:
    said = refused(fleet("dead_letter: {queue: d}", name="o.fifo"))
    assert said.endswith("a standard queue, but SQS wants a FIFO one behind a FIFO queue: write o-dlq.fifo")


def test_a_filter_on_the_body_may_be_nested(loaded: Load) -> None:
    lines = "topics: {t: {}}\n" + fleet(
        "subscribe: [{topic: t, filter_scope: MessageBody, filter: {a: {b: [1, {exists: true}]}}}]"
    )
    assert loaded(lines).queues["orders"].subscribe[0].filter == {"a": {"b": [1, {"exists": True}]}}


def test_the_bounds_themselves_are_allowed(loaded: Load) -> None:
    lines = ("visibility_timeout_seconds: 2", "max_lease_seconds: 2", "handler_timeout_seconds: 1.5", "attempts: 3")
    queue = loaded(fleet(*lines, "dead_letter: {max_receive_count: 3}", "retry: {base_seconds: 900}")).queues["orders"]
    assert queue.max_lease_seconds == 2
