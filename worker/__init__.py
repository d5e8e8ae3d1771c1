"""Longshore: a fleet of long-running workers for events that travel SNS topic -> SQS queues -> handlers.

These names are the public API, with `worker.middleware`, `worker.outbox` and `worker.testing`. Each is imported when it is first used,
so that a command that needs none of them starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from worker.errors import (
        ConfigError,
        InvalidPayloadError,
        LeaseLostError,
        LongshoreError,
        PermanentError,
        TransientError,
        UsageError,
    )
    from worker.message import Lease, Message
    from worker.middleware import CallNext, Middleware
    from worker.objects import S3Pointer
    from worker.outcome import Ack, DeadLetter, Outcome, Retry
    from worker.publisher import LargePayloads, Outgoing, Publisher, PublishError, PublishManyError
    from worker.router import Batch, ContractError, Router
    from worker.sql.migration import migrate

__all__ = [
    "Ack",
    "Batch",
    "CallNext",
    "ConfigError",
    "ContractError",
    "DeadLetter",
    "InvalidPayloadError",
    "LargePayloads",
    "Lease",
    "LeaseLostError",
    "LongshoreError",
    "Message",
    "Middleware",
    "Outcome",
    "Outgoing",
    "PermanentError",
    "PublishError",
    "PublishManyError",
    "Publisher",
    "Retry",
    "Router",
    "S3Pointer",
    "TransientError",
    "UsageError",
    "migrate",
]

_HOMES: Final = {
    "worker.errors": (
        "ConfigError",
        "InvalidPayloadError",
        "LeaseLostError",
        "LongshoreError",
        "PermanentError",
        "TransientError",
        "UsageError",
    ),
    "worker.message": ("Lease", "Message"),
    "worker.middleware": ("CallNext", "Middleware"),
    "worker.objects": ("S3Pointer",),
    "worker.outcome": ("Ack", "DeadLetter", "Outcome", "Retry"),
    "worker.publisher": ("LargePayloads", "Outgoing", "PublishError", "PublishManyError", "Publisher"),
    "worker.router": ("Batch", "ContractError", "Router"),
    "worker.sql.migration": ("migrate",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # type checkers read the imports above, and refuse names that do not exist

    def __getattr__(name: str) -> object:
        """Import a public name from its home on first use."""
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
