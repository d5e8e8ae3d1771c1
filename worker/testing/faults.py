"""What can go wrong between a source and its queue, on demand: scripted, or by chance from a seed."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from worker.errors import EntryError, Fault, SourceError

__all__ = ["Faults", "Operation", "Rule"]

Operation = Literal["receive", "extend", "delete", "dead_letter", "describe", "depth", "check_settlement"]

DENIED = SourceError(Fault.DENIED, "AccessDenied")
TIMED_OUT = SourceError(Fault.TIMEOUT, "TimeoutError")
UNAVAILABLE = SourceError(Fault.UNAVAILABLE, "ServiceUnavailable")

_Kind = Literal["fail", "hang", "slow", "entry", "double"]


@dataclass(slots=True, eq=False)
class Rule:
    """One thing that goes wrong; `stop()` ends it, `hits` counts it."""

    kind: _Kind
    operation: Operation | Literal["*"]
    times: int | None = 1
    """How often it still happens; `None` until it is stopped."""
    probability: float = 1.0
    after: bool = False
    """Whether the queue has done what was asked before it happens: only the answer is lost."""
    error: SourceError = UNAVAILABLE
    seconds: float | None = None
    hits: int = 0

    def stop(self) -> None:
        """Let it happen no more."""
        self.times = 0


class Faults:
    """The faults of one source. Every verb adds a `Rule`; rules are asked in the order they were added.

    `times` is how often it happens (`None`: until the rule is stopped), `probability` how likely each time.
    `after=True` lets the queue do what was asked and loses the answer.
    """

    def __init__(self, now: Callable[[], float], seed: int = 0) -> None:
        self._now = now
        self._random = random.Random(seed)
        self._rules: list[Rule] = []
        self._dark: list[tuple[float, float]] = []
        self.ghost_polls = False
        """Whether a long poll that its caller has given up still takes the next message, as seen on AWS."""

    def seed(self, seed: int) -> None:
        """Start the chances anew."""
        self._random.seed(seed)

    def fail(
        self,
        operation: Operation | Literal["*"],
        error: SourceError = UNAVAILABLE,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        after: bool = False,
    ) -> Rule:
        """Let whole calls fail with the error."""
        return self._add(Rule("fail", operation, times, probability, after, error))

    def lose_answer(self, operation: Operation | Literal["*"], *, times: int | None = 1) -> Rule:
        """Let calls take effect and end in a timeout: a receive hides its messages and nobody has them."""
        return self.fail(operation, TIMED_OUT, times=times, after=True)

    def deny(self, *operations: Operation) -> list[Rule]:
        """Deny the operations until the rules are stopped."""
        return [self.fail(operation, DENIED, times=None) for operation in operations]

    def hang(
        self,
        operation: Operation | Literal["*"],
        seconds: float | None = None,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        after: bool = False,
    ) -> Rule:
        """Let calls not answer: for `seconds`, then a timeout, or (`None`) until they are cancelled."""
        return self._add(Rule("hang", operation, times, probability, after, TIMED_OUT, seconds))

    def slow(
        self,
        operation: Operation | Literal["*"],
        seconds: float,
        *,
        times: int | None = None,
        probability: float = 1.0,
        after: bool = False,
    ) -> Rule:
        """Let calls take `seconds` more, on the way to the queue or (`after`) on the way back."""
        return self._add(Rule("slow", operation, times, probability, after, seconds=seconds))

    def dark(self, start: float, end: float) -> None:
        """Make the queue unreachable from `start` to `end`, in seconds of the event loop's clock."""
        self._dark.append((start, end))

    def fail_entries(
        self,
        operation: Literal["extend", "delete"],
        error: SourceError = UNAVAILABLE,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        after: bool = False,
    ) -> Rule:
        """Let single entries of batch calls fail; `times` counts entries."""
        return self._add(Rule("entry", operation, times, probability, after, error))

    def double(self, *, times: int | None = 1, probability: float = 1.0, same_response: bool = False) -> Rule:
        """Deliver messages of a standard queue twice: in the same response, or again in a later one."""
        return self._add(Rule("double", "receive", times, probability, after=same_response))

    def clear(self) -> None:
        """End all faults."""
        for rule in self._rules:
            rule.stop()
        self._rules.clear()
        self._dark.clear()
        self.ghost_polls = False

    async def strike(self, operation: Operation, *, after: bool) -> None:
        """Do what the rules say at this point of a call: nothing, wait, or raise `SourceError`."""
        self._check_dark()
        for rule in self._rules[:]:
            if rule.kind in ("fail", "hang", "slow") and self._applies(rule, operation, after=after):
                if rule.kind != "fail":
                    await (asyncio.Event().wait() if rule.seconds is None else asyncio.sleep(rule.seconds))
                if rule.kind != "slow":
                    raise _again(rule.error)
        self._check_dark()

    def entry_error(self, operation: Operation, *, after: bool) -> EntryError | None:
        """Return what becomes of one entry of a batch call."""
        for rule in self._rules:
            if rule.kind == "entry" and self._applies(rule, operation, after=after):
                return EntryError(rule.error.fault, rule.error.code, rule.error.detail)
        return None

    def is_doubled(self, *, same_response: bool) -> bool:
        """Whether a message that is being received comes twice."""
        for rule in self._rules:
            if rule.kind == "double" and self._applies(rule, "receive", after=same_response):
                return True
        return False

    def _add(self, rule: Rule) -> Rule:
        self._rules = [known for known in self._rules if known.times != 0]
        self._rules.append(rule)
        return rule

    def _applies(self, rule: Rule, operation: Operation, *, after: bool) -> bool:
        if rule.after != after or rule.operation not in (operation, "*") or rule.times == 0:
            return False
        if rule.probability < 1 and self._random.random() >= rule.probability:
            return False
        if rule.times is not None:
            rule.times -= 1
        rule.hits += 1
        return True

    def _check_dark(self) -> None:
        if self._dark and any(start <= self._now() < end for start, end in self._dark):
            raise _again(UNAVAILABLE)


def _again(error: SourceError) -> SourceError:
    """Return a fresh error, so that tracebacks do not pile up in one object."""
    return SourceError(error.fault, error.code, error.detail)
