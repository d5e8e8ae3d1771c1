"""Names, ARNs and URLs."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.settings.address import Address, by_name, environment_name

ARN = "arn:aws:sqs:eu-west-1:123456789012:orders"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", Address("orders")),
        ("orders.fifo", Address("orders.fifo")),
        (ARN, Address("orders", "eu-west-1", "123456789012")),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:a.fifo", Address("a.fifo", "cn-north-1", "123456789012")),
    ],
)
def test_a_queue_is_read_from_its_name_or_arn(text: str, expected: Address) -> None:
    assert Address.of_queue(text) == expected


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.us-east-1.amazonaws.com/123456789012/orders", "us-east-1"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/orders", "us-gov-west-1"),
        ("https://us-west-2.queue.amazonaws.com/123456789012/orders", "us-west-2"),
        ("https://vpce-0a1b.sqs.eu-west-1.vpce.amazonaws.com/123456789012/orders", "eu-west-1"),
        ("http://sqs.us-east-1.localhost.localstack.cloud:4566/123456789012/orders", "us-east-1"),
        ("http://localhost:4566/123456789012/orders", None),
    ],
)
def test_a_queue_is_read_from_its_url(url: str, region: str | None) -> None:
    assert Address.of_queue(url) == Address("orders", region, "123456789012", url)


@pytest.mark.parametrize(
    "text",
    [
        "", "or ders", "order.created", "a" * 81, "orders.fifo.fifo", "arn:aws:sqs:us-east-1:1:orders", "arn:aws:sqs",
        "arn:aws:sns:us-east-1:123456789012:orders", "https://sqs.us-east-1.amazonaws.com/orders", "ftp://host/1/orders",
        "https://user:secret@host/1/orders", "https://host/1/orders?x=1", "http://[::1/1/orders", "orders\n",
    ],
)  # fmt: skip
def test_what_names_no_queue_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"name") as refusal:
        Address.of_queue(text)
    assert "secret" not in str(refusal.value)


def test_topics_have_names_and_arns_but_no_urls() -> None:
    assert Address.of_topic("a" * 256).name == "a" * 256
    assert Address.of_topic("arn:aws:sns:us-east-1:123456789012:events.fifo").is_fifo
    for text in ("https://sns.us-east-1.amazonaws.com/123456789012/events", ARN):
        with pytest.raises(ValueError, match="topic"):
            Address.of_topic(text)


def test_a_dead_letter_queue_is_of_the_same_kind() -> None:
    assert Address("orders").dead_letter_name == "orders-dlq"
    assert Address("orders.fifo").dead_letter_name == "orders-dlq.fifo"


def test_variables_spell_dashes_and_dots_as_underscores() -> None:
    assert environment_name("order-processing.fifo") == "ORDER_PROCESSING_FIFO"


def test_paths_name_a_queue_by_its_bare_name() -> None:
    assert by_name(("queues", ARN, "tags")) == ("queues", "orders", "tags")
    assert by_name(("topics", "or ders")) == ("topics", "or ders")
    assert by_name(("aws", "region")) == ("aws", "region")


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """Nothing that a user writes ends in another error."""
    for parse in (Address.of_queue, Address.of_topic):
        with contextlib.suppress(ValueError):
            assert parse(text).name
