"""What a store of marks is: who works on a key, what is done, and what a store answers to one who wants to begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from worker.errors import LongshoreError

__all__ = ["VERSION", "Answer", "Begun", "Done", "Mark", "Other", "Row", "Running", "Store", "StoreError", "answer_to"]

VERSION: Final = 1
"""Of what the stores keep; a store that holds another one is refused."""


class StoreError(LongshoreError):
    """A store did not answer, or not with what was asked for; nothing is known of the call's effect."""


class Mark(NamedTuple):
    """One piece of work, and who does it."""

    key: str
    """The consumer's name and a hash of the business key: `order-processing:9f86d0...`."""
    fingerprint: str
    """A hash of the payload: the same key with another payload is another piece of work, and a mistake."""
    owner: str
    """The process and queue that work on it."""
    seconds: float
    """How long it may be in progress before another one may begin, unless it is renewed."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The work is ours: it is marked as in progress."""


@dataclass(frozen=True, slots=True)
class Done:
    """The work was done before."""


@dataclass(frozen=True, slots=True)
class Running:
    """Another owner has begun it."""

    seconds: float
    """Until its mark ends, if it is not renewed."""


@dataclass(frozen=True, slots=True)
class Other:
    """The key belongs to work with another payload."""


Answer = Begun | Done | Running | Other


class Store(Protocol):
    """Keeps marks, atomically: of all who begin a key at once, one is told `Begun`.

    Calls take many marks, each key once, and share round trips. Every call but `open` raises `StoreError` and nothing else.
    A mark that was not renewed in time has ended: its key is free. What is done stays for the store's retention.
    """

    async def open(self) -> None:
        """Reach the store and make its table where it has none; may be called again after a failure, or when it is open.

        Raises `StoreError` when it cannot be reached, `ConfigError` when it can never be used as it is.
        """

    async def is_made(self) -> bool:
        """Return whether its table is there already; make nothing. Raises what `open` raises."""

    async def close(self) -> None:
        """Give up every connection; never raises."""

    async def begin(self, marks: Sequence[Mark]) -> list[Answer]:
        """Mark each as in progress where its key is free or belongs to the same owner; return the answers by position."""

    async def finish(self, marks: Sequence[Mark]) -> None:
        """Mark each as done, whoever else has begun it meanwhile: it was done."""

    async def release(self, marks: Sequence[Mark]) -> None:
        """Free the keys that are still their owner's."""

    async def renew(self, marks: Sequence[Mark]) -> None:
        """Let each last for its seconds from now, where it is still its owner's."""

    async def prune(self) -> int:
        """Forget what has ended; return how much that was. 0 where the store does so by itself."""

    async def doubts(self) -> list[str]:
        """Return a sentence for each thing about it that works, but loses marks or keeps them for ever; raises nothing."""


class Row(NamedTuple):
    """What a store has on a key."""

    fingerprint: str
    owner: str | None
    """`None` once it is done."""
    ends_at: float
    """On the store's clock: when its mark ends, or when it is forgotten that it is done."""


def answer_to(mark: Mark, row: Row | None, now: float) -> Answer:
    """Return what one is told who wants to begin, given what the store has on the key."""
    if row is None or row.ends_at <= now:
        return Begun()
    if row.fingerprint != mark.fingerprint:
        return Other()
    if row.owner is None:
        return Done()
    return Begun() if row.owner == mark.owner else Running(row.ends_at - now)
