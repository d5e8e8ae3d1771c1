"""The environment over the file: it overrides what is there, and never invents anything."""

from collections.abc import Callable

import pytest

from worker.fleet.process import aws_access
from worker.settings import FleetSettings

Load = Callable[..., FleetSettings]
Refuse = Callable[..., str]

FLEET = """
service: orders
aws: {region: us-east-1}
topics: {order-events: }
queues:
  order-processing:
    handlers: app:router
    tags: {cost-center: a}
    subscribe: [{topic: order-events, filter: {event_type: [a]}}]
  emails.fifo: {handlers: app:router, dead_letter: none}
"""


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("LONGSHORE_SERVICE", "123", lambda fleet: fleet.service == "123"),
        ("LONGSHORE_DRAIN_SECONDS", "60", lambda fleet: fleet.drain_seconds == 60),
        ("longshore_drain_seconds", "60", lambda fleet: fleet.drain_seconds == 60),
        ("LONGSHORE_MAX_RUNNING_HANDLERS", "7", lambda fleet: fleet.max_running_handlers == 7),
        ("LONGSHORE_MAX_RUNNING_HANDLERS", "", lambda fleet: fleet.max_running_handlers is None),
        ("LONGSHORE_SERVER__PORT", "0", lambda fleet: fleet.server.port == 0),
        ("LONGSHORE_LOG__LEVEL", "debug", lambda fleet: fleet.log.level == "debug"),
        ("LONGSHORE_AWS__REGION", "eu-west-1", lambda fleet: fleet.aws.region == "eu-west-1"),
        ("LONGSHORE_AWS__REGION", "", lambda fleet: fleet.aws.region is None),
        ("LONGSHORE_DEFAULTS__ATTEMPTS", "9", lambda fleet: fleet.queues["order-processing"].attempts == 9),
        ("LONGSHORE_TOPICS__ORDER_EVENTS__EXTERNAL", "true", lambda fleet: fleet.topics["order-events"].external),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY",
            "4",
            lambda fleet: fleet.queues["order-processing"].concurrency == 4,
        ),
        ("LONGSHORE_QUEUES__EMAILS_FIFO__CONCURRENCY", "4", lambda fleet: fleet.queues["emails.fifo"].concurrency == 4),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__DEAD_LETTER__MAX_RECEIVE_COUNT",
            "12",
            lambda fleet: fleet.queues["order-processing"].dead_letter.max_receive_count == 12,
        ),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__DEAD_LETTER",
            "none",
            lambda fleet: fleet.queues["order-processing"].dead_letter == "none",
        ),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__RETRY__BASE_SECONDS",
            "9",
            lambda fleet: fleet.queues["order-processing"].retry.base_seconds == 9,
        ),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__SUBSCRIBE__0__RAW",
            "true",
            lambda fleet: fleet.queues["order-processing"].subscribe[0].raw,
        ),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__SUBSCRIBE__0__FILTER__EVENT_TYPE",
            "[b, c]",
            lambda fleet: fleet.queues["order-processing"].subscribe[0].filter == {"event_type": ["b", "c"]},
        ),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__TAGS__COST_CENTER",
            "012",
            lambda fleet: fleet.queues["order-processing"].tags == {"cost-center": "012"},
        ),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__TAGS",
            "{team: b}",
            lambda fleet: fleet.queues["order-processing"].tags == {"team": "b"},
        ),
        ("LONGSHORE_DEFAULTS__ALARMS", "[pages]", lambda fleet: fleet.queues["emails.fifo"].alarms == ("pages",)),
    ],
)
def test_a_variable_overrides_the_setting_that_it_spells(
    loaded: Load, name: str, text: str, read: Callable[[FleetSettings], bool]
) -> None:
    """`-` and `.` read as `_`, in any case; text stays text, the rest is YAML."""
    fleet = loaded(FLEET, {name: text})
    assert read(fleet)
    assert list(fleet.queues) == ["order-processing", "emails.fifo"]


def test_a_queue_that_was_given_by_arn_is_spelled_by_its_name(loaded: Load, refused: Refuse) -> None:
    text = "queues: {'arn:aws:sqs:us-east-1:123456789012:orders': {handlers: app:router}}"
    assert loaded(text, {"LONGSHORE_QUEUES__ORDERS__CONCURRENCY": "4"}).queues["orders"].concurrency == 4
    name = "LONGSHORE_QUEUES__ORDERS__ATTEMPTS"
    assert refused(text, {name: "0"}) == f"{name} is 0, but must be a whole number from 1 to 100"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LONGSHORE_QUEUES__ORDER_PROCESING__CONCURRENCY", "LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY"),
        ("LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURENCY", "LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY"),
        ("LONGSHORE_QUEUES_ORDER_PROCESSING_CONCURRENCY", "LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY"),
        (
            "LONGSHORE_QUEUES__ORDER_PROCESSING__SUBSCRIBE__1__RAW",
            "LONGSHORE_QUEUES__ORDER_PROCESSING__SUBSCRIBE__0__RAW",
        ),
        ("LONGSHORE_QUEUE__EMAILS_FIFO__CONCURRENCY", "LONGSHORE_QUEUES__EMAILS_FIFO__CONCURRENCY"),
        ("LONGSHORE_SERVER_PORT", "LONGSHORE_SERVER__PORT"),
        ("LONGSHORE_SERVR__PORT", "LONGSHORE_SERVER__PORT"),
        ("LONGSHORE_PORT", "LONGSHORE_SERVER__PORT"),
        ("LONGSHORE_DRAIN_SECOND", "LONGSHORE_DRAIN_SECONDS"),
        ("LONGSHORE_DRAIN", "LONGSHORE_DRAIN_SECONDS"),
        ("LONGSHORE_LOG_DIR", "LONGSHORE_LOG"),
        ("LONGSHORE_CONFIG_FILE", "LONGSHORE_CONFIG"),
    ],
)
def test_a_near_miss_is_refused_with_the_variable_that_was_meant(refused: Refuse, name: str, meant: str) -> None:
    """An override that overrides nothing is a mistake, and is never ignored in silence (X1)."""
    assert refused(FLEET, {name: "4"}) == f"{name} is not a setting of this fleet; did you mean {meant}?"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LONGSHORE_CONFIG", "elsewhere.yaml"),
        ("LONGSHORE_DOSE", "full"),
        ("LONGSHORE_HOME", "/srv"),
        ("LONGSHORE_SERVICE_HOST", "10.0.0.1"),
        ("LONGSHORE_SERVICE_PORT", "8080"),
        ("LONGSHORE_SERVICE_PORT_HTTP", "8080"),
        ("LONGSHORE_PORT", "tcp://10.0.0.1:8080"),
        ("LONGSHORE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("LONGSHORE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("LONGSHORE_ORDERS_SERVICE_HOST", "10.0.0.1"),
        ("OTHER_QUEUES__X", "1"),
    ],
)
def test_what_others_set_is_left_alone(loaded: Load, name: str, text: str) -> None:
    """Tests and tools have variables of their own, and Kubernetes gives pods some for each Service."""
    assert loaded(FLEET, {name: text}) == loaded(FLEET)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY": "0"},
            "LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY is 0, but must be a whole number from 1 to 1000",
        ),
        (
            {"LONGSHORE_DRAIN_SECONDS": "soon"},
            "LONGSHORE_DRAIN_SECONDS is 'soon', but must be a whole number from 5 to 3600",
        ),
        (
            {"LONGSHORE_DRAIN_SECONDS": ""},
            "LONGSHORE_DRAIN_SECONDS is empty, but must be a whole number from 5 to 3600",
        ),
        ({"LONGSHORE_DRAIN_SECONDS": "[1"}, "LONGSHORE_DRAIN_SECONDS is not YAML: line 1, column 3:"),
        ({"LONGSHORE_DEFAULTS__ATTEMPTS": "0"}, "LONGSHORE_DEFAULTS__ATTEMPTS is 0, but must be a whole number from 1"),
        ({"LONGSHORE_SERVER": "8080"}, "LONGSHORE_SERVER is 8080, but must be a mapping with the keys host, port"),
        (
            {"LONGSHORE_QUEUES": "{new: {handlers: 'app:router'}}"},
            "LONGSHORE_QUEUES is a mapping, but must be one value: set each key of queues by a variable of its own",
        ),
        (
            {"LONGSHORE_QUEUES__EMAILS_FIFO__DEAD_LETTER__QUEUE": "x.fifo"},
            "LONGSHORE_QUEUES__EMAILS_FIFO__DEAD_LETTER__QUEUE sets a key of queues.emails.fifo.dead_letter, but that is 'none'",
        ),
        ({"AWS_REGION": "Mars", "LONGSHORE_AWS__REGION": ""}, "AWS_REGION is 'Mars', but must be an AWS region"),
        ({"AWS_ENDPOINT_URL": "here"}, "AWS_ENDPOINT_URL is 'here', but must be a URL such as"),
        ({"AWS_ENDPOINT_URL_S3": "here"}, "AWS_ENDPOINT_URL_S3 is 'here', but must be a URL such as"),
    ],
)
def test_a_bad_value_is_told_of_the_variable(refused: Refuse, environ: dict[str, str], said: str) -> None:
    """The file is not blamed for what the environment says (X1)."""
    assert refused(FLEET, environ).startswith(said)


def test_a_bad_combination_names_the_variables_in_it(refused: Refuse) -> None:
    said = refused(FLEET, {"LONGSHORE_DRAIN_SECONDS": "10"})
    assert said.startswith("fleet.yaml: queues.order-processing.wait_time_seconds is 20, but must be at most 5")
    assert said.endswith("(drain_seconds is set by LONGSHORE_DRAIN_SECONDS)")


def test_two_settings_that_are_spelled_alike_are_refused_when_they_are_set(refused: Refuse) -> None:
    """A variable that could mean either never picks one in silence."""
    text = "queues: {a: {handlers: app:router}, a__attempts: {handlers: app:router}}"
    said = refused(text, {"LONGSHORE_QUEUES__A__ATTEMPTS": "5"})
    assert said == "LONGSHORE_QUEUES__A__ATTEMPTS may mean queues.a.attempts or queues.a__attempts: rename one of them"


@pytest.mark.parametrize(
    ("written", "environ", "region"),
    [
        ("{}", {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
        ("{}", {"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ("{region: us-east-1}", {"AWS_REGION": "eu-west-1"}, "us-east-1"),
        ("{region: us-east-1}", {"AWS_REGION": "eu-west-1", "LONGSHORE_AWS__REGION": "eu-west-3"}, "eu-west-3"),
    ],
)
def test_the_usual_variables_fill_in_the_region(
    loaded: Load, written: str, environ: dict[str, str], region: str
) -> None:
    """What the file says of the region, it says for this fleet; only `LONGSHORE_AWS__REGION` overrides it."""
    assert loaded(f"aws: {written}\nqueues: {{q: {{handlers: app:router}}}}", environ).aws.region == region


@pytest.mark.parametrize(
    ("written", "environ", "sqs", "sns"),
    [
        ("null", {"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1", "http://a:1"),
        ("null", {"AWS_ENDPOINT_URL": ""}, None, None),
        ("null", {"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_SQS": "http://b:2"}, "http://b:2", "http://a:1"),
        ("null", {"AWS_ENDPOINT_URL_SQS": "http://b:2"}, "http://b:2", None),
        (
            "http://c:3",
            {"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_SQS": "http://b:2"},
            "http://c:3",
            "http://c:3",
        ),
    ],
)
def test_the_usual_variables_fill_in_the_endpoints(
    loaded: Load, written: str, environ: dict[str, str], sqs: str | None, sns: str | None
) -> None:
    aws = loaded(f"aws: {{endpoint_url: {written}}}\nqueues: {{q: {{handlers: app:router}}}}", environ).aws
    assert (aws.endpoint_for("sqs"), aws.endpoint_for("sns")) == (sqs, sns)


@pytest.mark.parametrize("service", ["dynamodb", "s3", "sns", "sqs", "sts"])
def test_every_service_may_have_a_variable_of_its_own(loaded: Load, service: str) -> None:
    """As in any AWS SDK."""
    environ = {"AWS_ENDPOINT_URL": "http://a:1", f"AWS_ENDPOINT_URL_{service.upper()}": "http://b:2"}
    access = aws_access(loaded("queues: {q: {handlers: app:router}}", environ))
    others = {"dynamodb", "s3", "sns", "sqs", "sts"} - {service}
    assert access.endpoint_for(service) == "http://b:2"
    assert {access.endpoint_for(other) for other in others} == {"http://a:1"}
