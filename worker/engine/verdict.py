"""What becomes of a message: pure rules on what happened, how often it was received, and what its queue allows."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from worker.engine.backoff import equal_jitter
from worker.engine.lease import SQS_LIMIT_SECONDS
from worker.message import Received
from worker.outcome import Abandon, Ack, DeadLetter, Fate, Release, Retry
from worker.settings import QueueSettings
from worker.source import QueueFacts

__all__ = ["Rules", "Tries"]

LAST_HOUR_SECONDS = 3600
EXPIRING = "expiring"
RETURNED_TOO_OFTEN = "returned too often"


class Tries(NamedTuple):
    """How often a message has been tried, and how often it may be."""

    attempt: int
    """Which attempt the run was, from 1 up."""
    limit: int | None = None
    """The handler's own number of attempts, if it has one."""
    in_place: bool = False
    """Whether it may be run again without another receive."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The retry rules of one queue: what was configured, and what SQS says of the queue where that is known."""

    settings: QueueSettings
    facts: QueueFacts | None = None

    def judge(self, happened: Fate, received: Received, tries: Tries, *, now_wall: float) -> Fate:
        """Return what is to be done; a `Retry` comes back with its delay decided."""
        match happened:
            case Retry():
                return self._retry(happened, received, tries, now_wall)
            case Release() if self.is_last_receive(received) and self.can_dead_letter:
                return DeadLetter(RETURNED_TOO_OFTEN)
            case Ack() | DeadLetter() | Release() | Abandon():
                return happened

    def longest_delay_seconds(self, received: Received, now_wall: float) -> int:
        """How long a message may be hidden whose dead letter could not be sent: never past its retention (S7)."""
        return self._clamp(self.settings.retry.max_seconds, received, now_wall)

    def seconds_until_expiring(self, received: Received, now_wall: float) -> float:
        """Seconds from which on a failure is dead-lettered because the retention ends within an hour (S7)."""
        return self._expires_at(received) - LAST_HOUR_SECONDS - now_wall if self.can_dead_letter else math.inf

    @property
    def can_dead_letter(self) -> bool:
        """Whether the queue has a dead-letter queue; `none` is said on purpose."""
        return self.settings.dead_letter != "none"

    def is_last_receive(self, received: Received) -> bool:
        """Whether SQS itself would move the message at its next receive."""
        limit = self._max_receive_count
        return limit is not None and received.receive_count >= limit

    def has_receives_to_spare(self, received: Received, attempts: int) -> bool:
        """Whether it may be given back although it has failed in nothing: below its attempts, and half of what SQS allows."""
        limit = self._max_receive_count
        return limit is None or received.receive_count < max(min(attempts, limit), limit // 2)

    def is_last_attempt(self, received: Received, tries: Tries) -> bool:
        """Whether a failure of this run is the last: the attempts are used up, or SQS would not give the message again."""
        is_used_up = tries.attempt >= (tries.limit or self.settings.attempts)
        return is_used_up or (self.is_last_receive(received) and not tries.in_place)

    def _retry(self, retry: Retry, received: Received, tries: Tries, now_wall: float) -> Fate:
        if self.is_last_attempt(received, tries):
            reason = f"failed {tries.attempt} times" if tries.attempt else RETURNED_TOO_OFTEN
            return DeadLetter(retry.reason or reason, retry.error)
        if self.seconds_until_expiring(received, now_wall) <= 0:
            return DeadLetter(EXPIRING, retry.error)
        delay = retry.after
        if delay is None:
            delay = equal_jitter(
                tries.attempt,
                base_seconds=self.settings.retry.base_seconds,
                cap_seconds=self.settings.retry.max_seconds,
            )
        return replace(retry, after=self._clamp(delay, received, now_wall))

    @property
    def _max_receive_count(self) -> int | None:
        if self.facts is not None:
            return self.facts.max_receive_count
        dead_letter = self.settings.dead_letter
        return None if dead_letter == "none" else dead_letter.max_receive_count

    def _expires_at(self, received: Received) -> float:
        if not received.sent_at:
            return math.inf
        retention = self.settings.retention_seconds if self.facts is None else self.facts.retention_seconds
        return received.sent_at + retention

    def _clamp(self, delay: float, received: Received, now_wall: float) -> int:
        """Keep time for another attempt before the retention ends: half an hour, or half of what is left."""
        left = self._expires_at(received) - now_wall
        latest = max(left - LAST_HOUR_SECONDS / 2, left / 2, 1.0)
        return math.ceil(min(delay, latest, SQS_LIMIT_SECONDS))
