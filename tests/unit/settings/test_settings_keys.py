"""A key that is no setting is refused with the one that was meant, at any depth."""

from collections.abc import Callable

import pytest

from worker.settings.keys import dotted, nearest

Refuse = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("servce: a", "servce is not a setting; did you mean service?"),
        ("drain-seconds: 25", "drain-seconds is not a setting; did you mean drain_seconds?"),
        ("Service: a", "Service is not a setting; did you mean service?"),
        ("server: {prot: 1}", "server.prot is not a setting; did you mean port?"),
        ("port: 1", "port is not a setting; did you mean server.port?"),
        ("concurrency: 1", "concurrency is not a setting; did you mean defaults.concurrency?"),
        ("aws: {xyz: 1}", "aws.xyz is not a setting; the settings there are region, endpoint_url"),
        (
            "aws: {service_endpoint_urls: http://a}",
            "aws.service_endpoint_urls is not a setting; did you mean endpoint_url?",
        ),
        ("true: 1", "True is not a setting; the settings there are service, aws"),
        ("defaults: {handlers: app:router}", "defaults.handlers is not a setting; the settings there are"),
        ("defaults: {retry: {base: 1}}", "defaults.retry.base is not a setting; did you mean base_seconds?"),
        ("topics: {t: {externl: true}}", "topics.t.externl is not a setting; did you mean external?"),
        (
            "queues: {order-processing: {visibilty_timeout_seconds: 30}}",
            "queues.order-processing.visibilty_timeout_seconds is not a setting; did you mean visibility_timeout_seconds?",
        ),
        ("queues: {q: {name: x}}", "queues.q.name is not a setting; "),
        ("queues: {q: {address: x}}", "queues.q.address is not a setting; "),
        ("queues: {q: {base_seconds: 1}}", "queues.q.base_seconds is not a setting; did you mean retry.base_seconds?"),
        ("queues: {q: {dead_letter: {queu: x}}}", "queues.q.dead_letter.queu is not a setting; did you mean queue?"),
        (
            "queues: {q: {subscribe: [{topic: a}, {tpic: b}]}}",
            "queues.q.subscribe[1].tpic is not a setting; did you mean topic?",
        ),
    ],
)
def test_a_typo_is_refused_with_the_nearest_key(refused: Refuse, text: str, said: str) -> None:
    """Before anything else is said of the file (X1)."""
    assert refused(text).startswith(f"fleet.yaml: {said}")


def test_paths_are_written_with_dots_and_positions() -> None:
    assert dotted(("queues", "q", "subscribe", 0, "topic")) == "queues.q.subscribe[0].topic"
    assert dotted(("tags", "a\nb")) == r"tags.'a\nb'"


def test_the_nearest_word_is_found_whatever_its_case() -> None:
    assert nearest("CONCURENCY", ["concurrency", "attempts"]) == "concurrency"
    assert nearest("xyz", ["concurrency", "attempts"]) is None
