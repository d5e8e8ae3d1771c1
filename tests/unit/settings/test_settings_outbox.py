"""Whose outbox is sent: from one database, for topics that are declared, and with a password that nobody sees (X1)."""

from collections.abc import Callable

import pytest

from worker.settings import FleetSettings, effective

ARN = "arn:aws:sns:us-east-1:000000000000:order-events"
FLEET = "queues: {orders: {handlers: 'shop:router'}}\ntopics: {order-events: {}}\n"
OUTBOX = FLEET + "outbox: {database: 'sqlite:///orders.sqlite', topics: [order-events]}\n"


def test_a_fleet_without_one_sends_none(loaded: Callable[..., FleetSettings]) -> None:
    outbox = loaded(FLEET).outbox
    assert (outbox.database, outbox.topics) == (None, ())


def test_a_topic_is_named_as_publishers_were_told(loaded: Callable[..., FleetSettings]) -> None:
    """Rows of the outbox carry that name, and the relay looks for it."""
    assert loaded(OUTBOX).outbox.topics == ("order-events",)
    outbox = loaded(OUTBOX.replace("[order-events]", f"['{ARN}']")).outbox
    assert (outbox.topics, outbox.names()) == ((ARN,), ["order-events"])


def test_a_password_comes_from_the_environment_and_is_not_shown(loaded: Callable[..., FleetSettings]) -> None:
    url = "postgresql://shop:se@cret@host/orders"
    settings = loaded(OUTBOX, {"LONGSHORE_OUTBOX__DATABASE": url})
    assert settings.outbox.database == url
    assert effective(settings)["outbox"]["database"] == "postgresql://***@host/orders"


@pytest.mark.parametrize(
    ("outbox", "told"),
    [
        ("{topics: [order-events]}", "outbox.database is missing, but outbox.topics wants to be sent from one"),
        ("{database: 'sqlite:///a'}", "outbox.topics is missing, but outbox.database has events for topics"),
        (
            "{database: 'sqlite:///a', topics: [order-event]}",
            "is order-event, but must be declared in topics; did you mean order-events?",
        ),
        (
            "{database: 'sqlite:///a', topics: [news]}",
            "is news, but must be declared in topics; add it to topics (there: order-events)",
        ),
        ("{database: 'sqlite:///a', topics: [order-events, order-events]}", "name each topic once"),
        ("{database: 'sqlite:///a', topics: ['a b']}", "must be a topic's name of 1 to 256 letters"),
        ("{database: 'mysql://ann:secret@db/orders', topics: [order-events]}", "must be a URL such as sqlite:///"),
        ("{database: 'postgresql://ann:secret@db:x/orders', topics: [order-events]}", "its port must be a number"),
    ],
)
def test_what_cannot_be_sent_is_refused(refused: Callable[..., str], outbox: str, told: str) -> None:
    sentence = refused(f"{FLEET}outbox: {outbox}\n")
    assert told in sentence
    assert "secret" not in sentence
