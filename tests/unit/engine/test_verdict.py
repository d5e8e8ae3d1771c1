"""The retry rules: what becomes of a message, from what happened and how often it was received."""

import math
from typing import Any

import pytest

from worker.engine.verdict import EXPIRING, RETURNED_TOO_OFTEN, Rules, Tries
from worker.message import Received
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Release, Retry
from worker.settings import QueueSettings
from worker.source import QueueFacts

HOUR = 3600
DAY = 24 * HOUR
NOW = 1_800_000_000.0


def _rules(facts: QueueFacts | None = None, **settings: Any) -> Rules:
    return Rules(QueueSettings.model_validate({"name": "orders", "handlers": "tests:router", **settings}), facts)


def _facts(*, max_receive_count: int | None = 10, retention_seconds: int = 4 * DAY) -> QueueFacts:
    return QueueFacts(
        is_fifo=False,
        visibility_timeout_seconds=30,
        retention_seconds=retention_seconds,
        max_receive_count=max_receive_count,
    )


def _received(receive_count: int = 1, *, age_seconds: float = 10) -> Received:
    return Received("id", "receipt", "body", receive_count=receive_count, sent_at=NOW - age_seconds)


def _judge(rules: Rules, happened: Fate, received: Received, *, attempts: int | None = None) -> Fate:
    return rules.judge(happened, received, Tries(received.receive_count, attempts), now_wall=NOW)


def _delay(rules: Rules, retry: Retry, received: Received) -> float:
    fate = _judge(rules, retry, received)
    assert isinstance(fate, Retry)
    assert fate.after is not None
    return fate.after


class TestAttempts:
    def test_a_failure_below_the_attempts_is_retried(self) -> None:
        """A handler failure at receive count < `attempts` is tried again (S4)."""
        assert isinstance(_judge(_rules(attempts=3), Retry(reason="busy"), _received(2)), Retry)

    def test_a_failure_at_the_last_attempt_is_dead_lettered_with_its_reason(self) -> None:
        """A handler failure at receive count >= `attempts` dead-letters (S4)."""
        error = RuntimeError("busy")
        fate = _judge(_rules(attempts=3), Retry(after=60, reason="busy", error=error), _received(3))
        assert fate == DeadLetter("busy")
        assert isinstance(fate, DeadLetter)
        assert fate.error is error

    def test_a_failure_beyond_the_attempts_is_dead_lettered(self) -> None:
        """Receives that were no attempts may have come first: the count has passed `attempts` long ago (S4)."""
        assert _judge(_rules(attempts=3), Retry(), _received(7)) == DeadLetter("failed 7 times")

    def test_a_handlers_own_attempts_replace_the_queues(self) -> None:
        rules = _rules(attempts=3)
        assert isinstance(_judge(rules, Retry(reason="busy"), _received(4), attempts=5), Retry)
        assert _judge(rules, Retry(reason="busy"), _received(1), attempts=1) == DeadLetter("busy")

    @pytest.mark.parametrize("happened", [Ack(), Release(), Abandon()])
    def test_what_did_not_fail_in_this_very_receive_is_never_dead_lettered_by_attempts(self, happened: Fate) -> None:
        """Drains, lapses and success at a count beyond `attempts` do not dead-letter what never failed (S4)."""
        assert _judge(_rules(attempts=3), happened, _received(9)) == happened

    def test_a_dead_letter_is_dead_lettered_at_the_first_receive(self) -> None:
        assert _judge(_rules(), DeadLetter("sold out"), _received(1)) == DeadLetter("sold out")


class TestLastReceive:
    def test_a_message_at_its_last_receive_is_never_released(self) -> None:
        """SQS would move it without a reason: it is copied with the reason `returned too often` (S4)."""
        rules = _rules(attempts=3)
        assert _judge(rules, Release(), _received(9)) == Release()
        assert _judge(rules, Release(), _received(10)) == DeadLetter(RETURNED_TOO_OFTEN)

    def test_a_failure_at_the_last_receive_is_dead_lettered_even_below_the_attempts(self) -> None:
        """A handler with more attempts than the RedrivePolicy allows still gets its reason into the queue (S4)."""
        assert _judge(_rules(), Retry(reason="busy"), _received(10), attempts=50) == DeadLetter("busy")

    def test_the_queues_real_redrive_policy_counts(self) -> None:
        """`max_receive_count` is read from the queue, not believed from the settings (S4)."""
        assert _rules(_facts(max_receive_count=5)).is_last_receive(_received(5))
        assert not _rules(_facts(max_receive_count=50)).is_last_receive(_received(10))

    def test_a_queue_without_redrive_policy_has_no_last_receive(self) -> None:
        rules = _rules(_facts(max_receive_count=None))
        assert _judge(rules, Release(), _received(1000)) == Release()

    def test_without_a_dead_letter_queue_a_message_is_released_at_any_count(self) -> None:
        rules = _rules(dead_letter="none")
        assert _judge(rules, Release(), _received(1000)) == Release()


class TestDelay:
    @pytest.mark.parametrize(("receive_count", "ceiling"), [(1, 5), (2, 10), (3, 20), (4, 40)])
    def test_the_delay_doubles_with_each_receive_and_is_never_under_half(
        self, receive_count: int, ceiling: int
    ) -> None:
        """Exponential on receive count with equal jitter, base 5 s (S3)."""
        rules = _rules(attempts=50)
        delays = [_delay(rules, Retry(), _received(receive_count)) for _ in range(200)]
        assert min(delays) >= ceiling / 2
        assert max(delays) <= ceiling
        assert max(delays) - min(delays) >= ceiling / 4

    def test_the_delay_stops_growing_at_the_longest(self) -> None:
        rules = _rules(attempts=50, retry={"base_seconds": 5, "max_seconds": 60})
        delays = [_delay(rules, Retry(), _received(40)) for _ in range(100)]
        assert min(delays) >= 30
        assert max(delays) <= 60

    @pytest.mark.parametrize("after", [0, 1, 77, 3600])
    def test_the_handlers_own_delay_is_kept_exactly(self, after: int) -> None:
        """`retry_after` replaces the backoff, without jitter (S3)."""
        assert _delay(_rules(), Retry(after=after), _received(2)) == after

    def test_a_fraction_of_a_second_is_rounded_up(self) -> None:
        """SQS knows whole seconds; a retry is never earlier than asked for (S3)."""
        assert _delay(_rules(), Retry(after=0.2), _received()) == 1

    @pytest.mark.parametrize("after", [10**9, math.inf])
    def test_no_delay_is_longer_than_twelve_hours(self, after: float) -> None:
        """SQS hides no message for longer (S3, L5)."""
        assert _delay(_rules(), Retry(after=after), _received()) == 12 * HOUR
        assert _delay(_rules(), Retry(after=after), Received("id", "receipt", "body")) == 12 * HOUR

    def test_reason_and_error_are_kept(self) -> None:
        error = RuntimeError("busy")
        fate = _judge(_rules(), Retry(after=5, reason="busy", error=error), _received())
        assert isinstance(fate, Retry)
        assert (fate.reason, fate.error) == ("busy", error)


class TestRetention:
    def test_a_failure_within_the_last_hour_is_dead_lettered(self) -> None:
        """Retention deletes silently: the message is saved before it does (S7)."""
        rules = _rules(retention_seconds=DAY)
        assert isinstance(_judge(rules, Retry(), _received(age_seconds=DAY - HOUR - 1)), Retry)
        assert _judge(rules, Retry(), _received(age_seconds=DAY - HOUR + 1)) == DeadLetter(EXPIRING)

    def test_no_delay_passes_the_end_of_the_retention(self) -> None:
        """At least half an hour is left for the next attempt (S7)."""
        rules = _rules(retention_seconds=DAY)
        assert _delay(rules, Retry(after=12 * HOUR), _received(age_seconds=DAY - 2 * HOUR)) == 1.5 * HOUR

    def test_the_queues_real_retention_counts(self) -> None:
        rules = _rules(_facts(retention_seconds=2 * DAY), retention_seconds=DAY)
        assert isinstance(_judge(rules, Retry(), _received(age_seconds=DAY)), Retry)
        assert _judge(rules, Retry(), _received(age_seconds=2 * DAY - 60)) == DeadLetter(EXPIRING)

    def test_a_message_of_unknown_age_is_retried(self) -> None:
        assert isinstance(_judge(_rules(retention_seconds=60), Retry(), Received("id", "receipt", "body")), Retry)

    def test_success_in_the_last_hour_is_success(self) -> None:
        assert _judge(_rules(retention_seconds=DAY), Ack(), _received(age_seconds=DAY - 60)) == Ack()

    def test_the_longest_delay_respects_the_retention(self) -> None:
        """What could not be copied waits for the longest delay, but never past its end (S5, S7)."""
        rules = _rules(retention_seconds=DAY, retry={"max_seconds": 4 * HOUR})
        assert rules.longest_delay_seconds(_received(), NOW) == 4 * HOUR
        assert rules.longest_delay_seconds(_received(age_seconds=DAY - 2 * HOUR), NOW) == 1.5 * HOUR

    @pytest.mark.parametrize(("left_seconds", "delay"), [(1200, 600), (60, 30), (1, 1), (0, 1), (-600, 1)])
    def test_without_a_dead_letter_queue_the_last_hour_is_no_hot_loop(self, left_seconds: int, delay: int) -> None:
        """Half of what is left, at least a second: one message must not spin until its retention ends (S5, S7)."""
        rules = _rules(dead_letter="none", retention_seconds=DAY, attempts=50)
        received = _received(40, age_seconds=DAY - left_seconds)
        assert _delay(rules, Retry(after=HOUR), received) == delay
        assert rules.longest_delay_seconds(received, NOW) == delay
