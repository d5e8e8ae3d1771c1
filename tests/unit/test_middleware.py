"""The middleware that is ready to use."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from worker import (
    Ack,
    ConfigError,
    DeadLetter,
    Message,
    Middleware,
    Outcome,
    PermanentError,
    Retry,
    Router,
    TransientError,
)
from worker.middleware import logging, retry_in_place, timing
from worker.testing import virtual_time
from worker.testing.run import run


class Downstream:
    """Fails as often as it is told, then succeeds; notes the time of each call."""

    def __init__(self, *errors: BaseException, seconds: float = 0, outcome: Outcome | None = None) -> None:
        self.errors = list(errors)
        self.seconds = seconds
        self.outcome = outcome
        self.called_at: list[float] = []

    async def __call__(self, message: Message[str]) -> Outcome | None:  # noqa: ARG002 - the payload does not matter
        self.called_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        return self.outcome


def outcome_of(middleware: Middleware, downstream: Downstream, **options: Any) -> Outcome:
    router = Router(middleware=[middleware])
    router.on("order.created", **options)(downstream)
    return virtual_time.run(run(router, "secret payload", event_type="order.created", receive_count=2))


class TestLogging:
    @pytest.mark.parametrize(
        ("outcome", "level", "reason"),
        [
            (None, "info", ""),
            (Retry(reason="busy"), "warning", "busy"),
            (DeadLetter("sold out"), "warning", "sold out"),
        ],
    )
    def test_one_line_says_what_became_of_a_message(self, outcome: Outcome | None, level: str, reason: str) -> None:
        """The line names message, outcome and seconds, and never the payload (M3)."""
        with capture_logs() as lines:
            assert outcome_of(logging, Downstream(seconds=1.5, outcome=outcome)) == (outcome or Ack())
        (line,) = lines
        assert (line["event"], line["log_level"], line["reason"]) == ("handled", level, reason)
        assert (line["outcome"], line["seconds"]) == (type(outcome or Ack()).__name__, pytest.approx(1.5, abs=0.01))
        assert (line["queue"], line["event_type"], line["attempt"]) == ("test", "order.created", 2)
        assert "secret" not in str(lines)

    def test_what_was_raised_is_named_by_class_only(self) -> None:
        with capture_logs() as lines:
            assert outcome_of(logging, Downstream(PermanentError("secret"))) == DeadLetter("secret")
        assert (lines[0]["event"], lines[0]["error"]) == ("handler raised", "PermanentError")
        assert "secret" not in str(lines)


class TestTiming:
    def test_only_a_slow_handler_is_warned_of(self) -> None:
        with capture_logs() as lines:
            outcome_of(timing(slow_seconds=2), Downstream(seconds=1.9))
            assert lines == []
            outcome_of(timing(slow_seconds=2), Downstream(seconds=3))
        (line,) = lines
        assert (line["event"], line["log_level"], line["slow_seconds"]) == ("slow handler", "warning", 2)
        assert line["seconds"] == pytest.approx(3, abs=0.01)

    def test_a_handler_that_ran_into_its_timeout_is_warned_of_too(self) -> None:
        with capture_logs() as lines, pytest.raises(TimeoutError):
            outcome_of(timing(slow_seconds=2), Downstream(seconds=60), timeout=5)
        assert lines[0]["seconds"] == pytest.approx(5, abs=0.01)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_a_bound_that_is_none_is_refused(self, seconds: float) -> None:
        with pytest.raises(ConfigError, match="seconds above 0"):
            timing(slow_seconds=seconds)


class TestRetryInPlace:
    def test_a_listed_error_is_tried_again_in_the_same_call(self) -> None:
        downstream = Downstream(TransientError("busy"), TransientError("busy"))
        with capture_logs() as lines:
            assert outcome_of(retry_in_place(), downstream) == Ack()
        assert "secret" not in str(lines)
        first, second, third = downstream.called_at
        assert 0.1 <= second - first <= 0.21
        assert 0.2 <= third - second <= 0.31

    def test_the_last_error_is_raised(self) -> None:
        downstream = Downstream(*(TransientError(f"busy {n}") for n in range(5)))
        assert outcome_of(retry_in_place(attempts=3), downstream) == Retry(reason="busy 2")
        assert len(downstream.called_at) == 3

    def test_other_errors_and_outcomes_pass(self) -> None:
        for downstream, expected in (
            (Downstream(PermanentError("sold out")), DeadLetter("sold out")),
            (Downstream(outcome=Retry(5)), Retry(5)),
            (Downstream(outcome=DeadLetter("bad")), DeadLetter("bad")),
        ):
            assert outcome_of(retry_in_place(), downstream) == expected
            assert len(downstream.called_at) == 1

    def test_the_list_of_errors_is_the_users(self) -> None:
        downstream = Downstream(ConnectionError(), OSError(), TransientError("busy"))
        assert outcome_of(retry_in_place(on=(OSError, KeyError)), downstream) == Retry(reason="busy")
        assert len(downstream.called_at) == 3

    def test_a_short_retry_after_is_kept_and_a_long_one_leaves_the_slot(self) -> None:
        downstream = Downstream(TransientError(retry_after=4), TransientError("later", retry_after=60))
        assert outcome_of(retry_in_place(), downstream) == Retry(after=60, reason="later")
        first, second = downstream.called_at
        assert second - first == pytest.approx(4, abs=0.01)

    def test_a_cancellation_is_not_tried_again(self) -> None:
        downstream = Downstream(seconds=60)
        with pytest.raises(TimeoutError):
            outcome_of(retry_in_place(on=Exception), downstream, timeout=5)
        assert len(downstream.called_at) == 1

    @pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_wait_seconds": -1}, {"first_wait_seconds": 9}])
    def test_numbers_that_mean_nothing_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"retry_in_place\(.*is not allowed"):
            retry_in_place(**wrong)
