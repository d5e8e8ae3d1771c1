"""The whole fleet: defaults under each queue, what holds between queues and topics, and what is warned of."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from worker.settings import AwsSettings, FleetSettings, QueueDefaults, QueueSettings

Load = Callable[..., FleetSettings]
Refuse = Callable[..., str]


def test_a_fleet_needs_one_queue_only(loaded: Load) -> None:
    fleet = loaded("queues: {orders: {handlers: app:router}}")
    assert (fleet.service, fleet.drain_seconds, fleet.max_running_handlers) == ("longshore", 25, None)
    assert (fleet.server.host, fleet.server.port) == ("127.0.0.1", 8080)
    assert (fleet.log.format, fleet.log.level) == ("auto", "info")
    assert (fleet.aws.region, fleet.aws.endpoint_url) == (None, None)
    assert fleet.warnings == ()


def test_sections_whose_keys_are_commented_out_are_empty(loaded: Load) -> None:
    fleet = loaded("aws:\nserver:\nlog:\ndefaults:\ntopics:\n  t:\nqueues: {orders: {handlers: app:router, tags: }}")
    assert not fleet.topics["t"].external


def test_defaults_hold_for_each_queue_that_does_not_say_otherwise(loaded: Load) -> None:
    fleet = loaded(
        """
        defaults: {concurrency: 3, attempts: 5, retry: {base_seconds: 7, max_seconds: 70}, tags: {team: a, env: p}}
        queues:
          one: {handlers: app:router}
          two: {handlers: app:router, concurrency: 4, retry: {max_seconds: 80}, tags: {team: b}}
        """
    )
    one, two = fleet.queues.values()
    assert (one.concurrency, one.attempts, two.concurrency, two.attempts) == (3, 5, 4, 5)
    assert one.dead_letter != "none"
    assert one.dead_letter.max_receive_count == 12
    assert (two.retry.base_seconds, two.retry.max_seconds) == (7, 80)
    assert two.tags == {"team": "b", "env": "p"}


def test_a_fleet_can_be_made_in_code() -> None:
    queue = QueueSettings(name="orders", handlers="app:router")
    assert FleetSettings(queues={"orders": queue}).queues["orders"] is queue
    with pytest.raises(ValidationError, match="wait_time_seconds"):
        FleetSettings(queues={"orders": queue}, drain_seconds=24)
    raw = {"handlers": "app:router", "attempts": 4}
    fleet = FleetSettings.model_validate(
        {"defaults": QueueDefaults(attempts=2, concurrency=2), "queues": {"orders": raw}}
    )
    assert (fleet.queues["orders"].attempts, fleet.queues["orders"].concurrency) == (4, 2)


@pytest.mark.parametrize("raw", [[], {"queues": {5: {}}}, {"queues": {"a b": {}}}, {"queues": {"q": {"name": 5}}}])
def test_whatever_is_given_in_code_is_a_validation_error(raw: object) -> None:
    with pytest.raises(ValidationError):
        FleetSettings.model_validate(raw)


Q = "{handlers: app:router}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("service: orders", "queues is missing, but must be a mapping of at least one queue, each with its handlers"),
        ("queues: {}", "queues is an empty mapping, but must be a mapping of at least one queue"),
        ("queues:", "queues is an empty mapping, but must be a mapping of at least one queue"),
        ("queues: [a]", "queues is a list, but must be a mapping of at least one queue"),
        ("queues: {orders: 5}", "queues.orders is 5, but must be a mapping with the keys "),
        ("queues: {orders: }", "queues.orders.handlers is missing, but must be module:attribute"),
        (f"queues: {{or ders: {Q}}}", "queues.or ders is a key that must be a queue's name of 1 to 80 letters"),
        (f"queues: {{5: {Q}}}", "queues has the key 5, but a key must be text: put it in quotes"),
        (f"service: a b\nqueues: {{q: {Q}}}", "service is 'a b', but must be 1 to 64 letters, digits, - and _"),
        (f"drain_seconds: 4\nqueues: {{q: {Q}}}", "drain_seconds is 4, but must be a whole number from 5 to 3600"),
        (f"server: {{port: 70000}}\nqueues: {{q: {Q}}}", "server.port is 70000, but must be a whole number from 0 to 65535"),
        (f"log: {{format: xml}}\nqueues: {{q: {Q}}}", "log.format is 'xml', but must be one of json, console, auto"),
        (f"aws: {{region: Ireland}}\nqueues: {{q: {Q}}}", "aws.region is 'Ireland', but must be an AWS region, such as us-east-1"),
        (f"aws: {{endpoint_url: localhost:4566}}\nqueues: {{q: {Q}}}", "aws.endpoint_url is 'localhost:4566', but must be a URL"),
        (f"defaults: {{concurrency: 0}}\nqueues: {{q: {Q}}}", "defaults.concurrency is 0, but must be a whole number from 1"),
        (f"drain_seconds: 24\nqueues: {{q: {Q}}}", "queues.q.wait_time_seconds is 20, but must be at most 19, which is drain_seconds (24) less 5"),
        (
            f"queues: {{a-b: {Q}, a_b: {Q}}}",
            "queues.a_b is A_B in the environment, as a-b is, but names must differ in more than -, . and case",
        ),
        (
            f"queues: {{q: {Q}, 'arn:aws:sqs:us-east-1:123456789012:q': {Q}}}",
            "queues.arn:aws:sqs:us-east-1:123456789012:q is q as q is, but must be named once",
        ),
        (f"topics: {{a-b: , A-B: }}\nqueues: {{q: {Q}}}", "topics.A-B is A_B in the environment, as a-b is"),
        (
            f"queues: {{a: {{handlers: app:router, dead_letter: {{queue: b}}}}, b: {Q}}}",
            "queues.a.dead_letter.queue is b, which is also in queues, but must be a queue that this fleet does not consume",
        ),
        (f"queues: {{a: {Q}, a-dlq: {Q}}}", "queues.a.dead_letter.queue is a-dlq, which is also in queues"),
        (
            f"topics: {{t: }}\nqueues: {{a: {{handlers: app:router, subscribe: [{{topic: t, dead_letter: b}}]}}, b: {Q}}}",
            "queues.a.subscribe[0].dead_letter is b, which is also in queues",
        ),
        (
            "topics: {order-events: }\nqueues: {a: {handlers: app:router, subscribe: [{topic: order-event}]}}",
            "queues.a.subscribe[0].topic is order-event, but must be declared in topics; did you mean order-events?",
        ),
        (
            "topics: {xyz: }\nqueues: {a: {handlers: app:router, subscribe: [{topic: order-event}]}}",
            "queues.a.subscribe[0].topic is order-event, but must be declared in topics; add it to topics (there: xyz)",
        ),
        (
            "topics: {t: }\nqueues: {q.fifo: {handlers: app:router, subscribe: [{topic: t}]}}",
            "queues.q.fifo.subscribe[0].topic is t, a standard topic, but SNS delivers to a FIFO queue from FIFO topics only",
        ),
        (
            "topics: {t: }\nqueues: {q: {handlers: app:router, subscribe: [{topic: t, dead_letter: d.fifo}]}}",
            "queues.q.subscribe[0].dead_letter is d.fifo, but must be a standard queue, as t is a standard topic",
        ),
        (
            f"aws: {{region: us-east-1}}\nqueues: {{'arn:aws:sqs:eu-west-1:123456789012:q': {Q}}}",
            "queues.q lies in eu-west-1, but aws.region is us-east-1, and a fleet runs in one region",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(refused: Refuse, text: str, said: str) -> None:
    """One sentence names the key, what was found and what is allowed (X1, D1)."""
    assert refused(text).startswith(f"fleet.yaml: {said}")


def test_a_mistake_in_the_defaults_is_told_of_the_defaults(refused: Refuse) -> None:
    """A queue that took a value from `defaults` is not blamed for it."""
    text = f"defaults: {{max_lease_seconds: 10}}\nqueues: {{q: {Q}}}"
    assert refused(text).endswith("(max_lease_seconds is set by defaults.max_lease_seconds)")


def test_a_queue_that_was_given_by_arn_is_blamed_for_what_it_says_itself(refused: Refuse) -> None:
    queue = "'arn:aws:sqs:us-east-1:123456789012:q': {handlers: app:router, max_lease_seconds: 10}"
    said = refused(f"defaults: {{max_lease_seconds: 100}}\nqueues: {{{queue}}}")
    assert said.startswith("fleet.yaml: queues.q.max_lease_seconds is 10, but must be at least")
    assert "set by" not in said


def test_the_password_of_a_url_is_not_repeated(refused: Refuse) -> None:
    said = refused(f"aws: {{endpoint_url: 'http://user:hunter2@host'}}\nqueues: {{q: {Q}}}")
    assert "without user and password" in said
    assert "hunter2" not in said


def test_a_long_value_is_cut(refused: Refuse) -> None:
    assert len(refused(f"service: '{'x' * 5000}'\nqueues: {{q: {Q}}}")) < 200


def test_a_fifo_topic_may_feed_a_standard_queue(loaded: Load) -> None:
    """SNS delivers from FIFO topics to both kinds of queues; a topic's ARN is as good as its name."""
    arn = "arn:aws:sns:eu-west-1:123456789012:t.fifo"
    fleet = loaded(f"topics: {{'{arn}': }}\nqueues: {{q: {{handlers: app:router, subscribe: [{{topic: '{arn}'}}]}}}}")
    assert fleet.topics[fleet.queues["q"].subscribe[0].topic].address == arn
    assert fleet.topics["t.fifo"].is_fifo


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "handler_timeout_seconds: 23",
            "handler_timeout_seconds is 23, more than the 22 s that drain_seconds (25) leaves",
        ),
        ("dead_letter: {max_receive_count: 4}", "dead_letter.max_receive_count is 4, less than attempts (3) and 2"),
        (
            "retention_seconds: 3600",
            "retention_seconds is 3600, at most an hour: every failure is dead-lettered at once",
        ),
        (
            "{max_lease_seconds: 7200, retention_seconds: 7200}",
            "retention_seconds is 7200, at most max_lease_seconds (7200): SQS may delete a message",
        ),
        ("wait_time_seconds: 0", "wait_time_seconds is 0: an empty queue is asked again and again"),
    ],
)
def test_what_works_but_costs_something_is_a_warning(loaded: Load, lines: str, said: str) -> None:
    """A warning is a sentence, not a refusal (D1, S4, S7)."""
    fleet = loaded(f"queues: {{q: {{handlers: app:router, {lines.strip('{}') if lines[0] == '{' else lines}}}}}")
    (warning,) = fleet.warnings
    assert warning.startswith(f"queues.q.{said}")


def test_numbers_that_fit_are_no_warning(loaded: Load) -> None:
    lines = "handler_timeout_seconds: 22, dead_letter: {max_receive_count: 5}, retention_seconds: 3601"
    assert loaded(f"queues: {{q: {{handlers: app:router, {lines}}}}}").warnings == ()


def test_a_service_may_have_an_endpoint_of_its_own() -> None:
    aws = AwsSettings(endpoint_url="http://all:1", service_endpoint_urls={"sqs": "http://sqs:2"})
    assert (aws.endpoint_for("sqs"), aws.endpoint_for("sns")) == ("http://sqs:2", "http://all:1")
    assert AwsSettings(endpoint_url="http://all:1").endpoint_for("sqs") == "http://all:1"
