"""Settings of what a queue's handlers depend on: the range of concurrency and the breaker."""

from pathlib import Path
from typing import Any

import pytest

from worker.errors import ConfigError
from worker.settings import BreakerSettings, ConcurrencyRange, FleetSettings, QueueSettings
from worker.settings.load import load


def queue(**settings: Any) -> QueueSettings:
    fleet = FleetSettings.model_validate({"queues": {"orders": {"handlers": "shop:router", **settings}}})
    return fleet.queues["orders"]


def warnings(**settings: Any) -> tuple[str, ...]:
    return FleetSettings.model_validate({"queues": {"orders": {"handlers": "shop:router", **settings}}}).warnings


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "fleet.yaml"
    path.write_text(f"queues: {{orders: {{handlers: 'shop:router', {text}}}}}")
    with pytest.raises(ConfigError) as error:
        load(path)
    return str(error.value)


def test_concurrency_is_a_number_or_a_range() -> None:
    """The most that may run at once decides about room and connections."""
    assert queue(concurrency=4).max_concurrency == 4
    adaptive = queue(concurrency={"min": 2, "max": 64})
    assert adaptive.concurrency == ConcurrencyRange(min=2, max=64)
    assert adaptive.max_concurrency == 64


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("concurrency: {min: 9, max: 3}", "queues.orders.concurrency.min is 9, but must be at most max (3)"),
        ("concurrency: {min: 9}", "queues.orders.concurrency.max is missing"),
        ("concurrency: {min: 0, max: 3}", "queues.orders.concurrency.min is 0, but must be a whole number from 1"),
        ("concurrency: 0", "queues.orders.concurrency is 0, but must be a whole number from 1 to 1000 or a mapping"),
        ("breaker: {failure_ratio: 0}", "queues.orders.breaker.failure_ratio is 0, but must be a number above 0"),
        ("breaker: {failure_ratio: 1.5}", "queues.orders.breaker.failure_ratio is 1.5"),
        ("breaker: {calls: 1}", "queues.orders.breaker.calls is 1, but must be a whole number from 2 to 1000"),
        ("breaker: {pauses: 1}", "queues.orders.breaker.pauses is not a setting; did you mean pause_seconds?"),
        ("breaker: sometimes", "queues.orders.breaker is 'sometimes', but must be a mapping"),
        (
            "concurrency: 1, breaker: {calls: 1000, window_seconds: 2}",
            "breaker.window_seconds is 2, but in that time no more than 400 handler calls can end at concurrency 1",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    """Also where a value may be one of several things, the sentence is about the one that it is like (X1)."""
    assert told in refusal(tmp_path, text)


def test_the_breaker_is_on_unless_said_otherwise() -> None:
    assert queue().breaker == BreakerSettings(failure_ratio=0.5, calls=20, window_seconds=None, pause_seconds=5)
    assert queue(breaker="none").breaker == "none"


@pytest.mark.parametrize(("ratio", "calls", "failures"), [(0.5, 20, 10), (0.01, 20, 1), (1.0, 7, 7), (0.34, 3, 2)])
def test_the_ratio_is_a_number_of_failures(ratio: float, calls: int, failures: int) -> None:
    assert BreakerSettings(failure_ratio=ratio, calls=calls).failures == failures


def test_the_window_is_long_enough_for_time_limits_unless_it_is_set() -> None:
    """Twenty calls that run into a limit of five minutes, two at once, take fifty minutes (P1)."""
    assert queue().breaker_window_seconds == 60
    assert queue(concurrency=2, handler_timeout_seconds=300).breaker_window_seconds == 3000
    assert queue(concurrency=2, handler_timeout_seconds=300, breaker={"window_seconds": 9}).breaker_window_seconds == 9


def test_a_window_in_which_time_limits_never_open_it_is_warned_of() -> None:
    (warning,) = warnings(concurrency=2, handler_timeout_seconds=20, breaker={"window_seconds": 30})
    assert "queues.orders.breaker.window_seconds is 30, in which no more than 3 handler calls can run into" in warning
    assert warnings(concurrency=2, handler_timeout_seconds=20) == ()


def test_a_queues_breaker_is_merged_with_the_defaults_key_by_key() -> None:
    fleet = FleetSettings.model_validate(
        {
            "defaults": {"breaker": {"calls": 50, "pause_seconds": 9}},
            "queues": {"orders": {"handlers": "shop:router", "breaker": {"calls": 30}}},
        }
    )
    breaker = fleet.queues["orders"].breaker
    assert breaker == BreakerSettings(calls=30, pause_seconds=9)
