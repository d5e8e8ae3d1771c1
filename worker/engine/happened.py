"""What happened in a handler, as one value: exceptions, interruptions and outcomes that cannot be settled."""

import math
import random
from collections.abc import Iterator

from worker.engine.delivery import Cause
from worker.errors import InvalidPayloadError, PermanentError, TransientError
from worker.outcome import Abandon, DeadLetter, Fate, Outcome, Release, Retry
from worker.router import ContractError
from worker.telemetry.exceptions import said

__all__ = ["RAN_OUT_OF_TIME", "classify", "interrupted", "leaves", "sound"]

REASON_CHARACTERS = 500
THROTTLED_SECONDS = (10.0, 20.0)
"""After how long a message may come again that has waited for its handler's limit for too long."""
RAN_OUT_OF_TIME = "the handler ran into its time limit"


def interrupted(cause: Cause, *, has_run: bool) -> Fate:
    """Return what a message becomes whose handler was cancelled by us."""
    match cause:
        case Cause.TIMEOUT:
            return Retry(reason=RAN_OUT_OF_TIME)
        case Cause.LEASE_CAP:
            return Retry(reason="the handler ran into max_lease_seconds") if has_run else Release()
        case Cause.DRAIN | Cause.PERMIT_LOST | Cause.MARK_LOST:
            return Release()
        case Cause.THROTTLED:
            return Release(random.uniform(*THROTTLED_SECONDS))
        case Cause.LEASE_LOST:
            return Abandon()


def sound(outcome: Outcome) -> Outcome:
    """Return the outcome if its fields can be settled; raise `ContractError`, which names the one that cannot."""
    if not isinstance(outcome.reason, str):
        raise ContractError(f"the outcome's reason is a {type(outcome.reason).__name__}; allowed is a string")
    if isinstance(outcome, Retry) and not _is_delay(outcome.after):
        raise ContractError("the outcome's delay is not allowed; write seconds from 0 up, or None")
    return outcome


def classify(error: BaseException) -> Outcome:
    """Return the outcome that an exception stands for, whatever the exception does when it is looked at."""
    try:
        return sound(_outcome_of(error))
    except Exception:  # noqa: BLE001  # a stranger's __str__ or fields may raise
        return Retry(reason=type(error).__name__)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, or the one that is none."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def _outcome_of(error: BaseException) -> Outcome:
    match error:
        case BaseExceptionGroup():
            return _outcome_of_group(error)
        case PermanentError():
            # An invalid payload is told by its reason; its traceback is ours and says nothing.
            return DeadLetter(_reason(error), None if isinstance(error, InvalidPayloadError) else error)
        case TransientError():
            return Retry(after=_retry_after(error), reason=_reason(error), error=error)
        case _:
            return Retry(reason=f"{type(error).__name__}: {said(error)}"[:REASON_CHARACTERS], error=error)


def _outcome_of_group(group: BaseExceptionGroup[BaseException]) -> Outcome:
    """Return `DeadLetter` only if all members are permanent, else a retry after the longest delay that one asks for."""
    members = list(leaves(group))
    first = _outcome_of(members[0])
    if all(isinstance(member, PermanentError) for member in members):
        return first
    delays = [_retry_after(member) for member in members if isinstance(member, TransientError)]
    longest = max((delay for delay in delays if delay is not None), default=None)
    return Retry(after=longest, reason=first.reason, error=group)


def _reason(error: PermanentError | TransientError) -> str:
    """Return what the error says; a subclass need not have called `super().__init__`."""
    return str(getattr(error, "reason", "") or type(error).__name__)


def _retry_after(error: TransientError) -> float | None:
    delay: float | None = getattr(error, "retry_after", None)
    return delay if _is_delay(delay) else None


def _is_delay(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and 0 <= value < math.inf)
