"""`Batch`: how many messages one call of a handler takes, and how long the first of them waits for the others."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.errors import ConfigError

__all__ = ["Batch"]

MAX_SIZE: Final = 10_000
MAX_WINDOW_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Batch:
    """Asks for messages in batches: `@router.on("page.viewed", batch=Batch(size=200, window_seconds=1))`.

    A batch is handled when it has `size` messages, when its first message has waited for `window_seconds`, when the queue
    has no room for more, or when the worker drains. A queue holds up to `concurrency` times `size` messages, each with its
    own lease. A FIFO queue takes at most ten, all of one group, and waits for no window.

    Raises `ConfigError` for values out of bounds.
    """

    size: int
    """1 to 10000 messages; more than SQS's ten are collected from several receives."""
    window_seconds: float = 1.0
    """0 to 3600 seconds."""
    on_error: Literal["fail", "split"] = "fail"
    """What becomes of a batch whose handler raises or runs out of time: `fail` fails every message in it, `split` calls the
    handler again with each message by itself, at once, so that only the bad ones fail."""

    def __post_init__(self) -> None:
        size: Any = self.size
        window: Any = self.window_seconds
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            raise ConfigError(f"Batch has size={size!r}; allowed is a whole number from 1 to {MAX_SIZE}")
        if isinstance(window, bool) or not isinstance(window, (int, float)) or not 0 <= window <= MAX_WINDOW_SECONDS:
            raise ConfigError(f"Batch has window_seconds={window!r}; allowed are 0 to {MAX_WINDOW_SECONDS} seconds")
        if self.on_error not in {"fail", "split"}:
            raise ConfigError(f"Batch has on_error={self.on_error!r}; allowed are 'fail' and 'split'")
