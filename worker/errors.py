"""Every error that Longshore raises or understands: one base, a branch for each side, one sentence each."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ConfigError",
    "EntryError",
    "Fault",
    "InvalidPayloadError",
    "LeaseLostError",
    "LongshoreError",
    "PermanentError",
    "SourceError",
    "TransientError",
    "UsageError",
]


class LongshoreError(Exception):
    """Base of all errors of this package."""


class UsageError(LongshoreError):
    """A user's mistake. Its text is one sentence that names the thing, what was found, what is allowed, what to do."""


class ConfigError(UsageError):
    """A mistake in the fleet file, its environment overrides or the handlers that it names."""


class TransientError(LongshoreError):
    """Raised by a handler: the work failed for now; the same as returning `Retry`."""

    def __init__(self, reason: str = "", *, retry_after: float | None = None, is_downstream: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds until the message may be received again; `None` means the queue's backoff."""
        self.is_downstream = is_downstream
        """Whether it may lie with what the handler depends on. False says that this message alone has to wait, for another
        one or for its hour: it never opens the queue's breaker."""


class LeaseLostError(TransientError):
    """Raised where work would be committed whose message someone else may hold by now. Let it pass: it rolls back."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason, is_downstream=False)


class PermanentError(LongshoreError):
    """Raised by a handler: the work can never succeed; the same as returning `DeadLetter`."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidPayloadError(PermanentError):
    """The body cannot be what the handler's annotation asks for. The text never quotes the payload."""


class Fault(StrEnum):
    """Why AWS refused a call, told by its error code (a throttle can arrive as 403)."""

    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"  # 5xx, reset, DNS, TLS, an answer that cannot be parsed
    TIMEOUT = "timeout"  # our own deadline passed
    DENIED = "denied"
    MISSING = "missing"  # no such queue
    EXPIRED = "expired"  # credentials or signature; a refresh may heal it
    LOST = "lost"  # the receipt handle is no longer ours
    INVALID = "invalid"  # AWS will never accept this request

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed if it is made again soon."""
        return self in _PASSING


_PASSING = frozenset({Fault.THROTTLED, Fault.UNAVAILABLE, Fault.TIMEOUT, Fault.EXPIRED})


class SourceError(LongshoreError):
    """A whole call to a source failed; nothing is known of its effect."""

    def __init__(self, fault: Fault, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.fault = fault
        self.code = code
        """AWS's error code, or the class of the network error."""
        self.detail = detail


@dataclass(frozen=True, slots=True)
class EntryError:
    """One entry of a batch call failed; the others are not affected."""

    fault: Fault
    code: str
    detail: str = ""
