"""`Limiter` and its `Permit`s: what the engine asks before it receives, and before it calls a handler."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from worker.settings import LimitSettings

__all__ = ["Limiter", "Permit", "granted", "withdraw"]


class Permit:
    """The right to one message, or to one call; it ends when it is released or lost."""

    __slots__ = ("_give_back", "is_lost", "on_lost")

    def __init__(self, give_back: "Callable[[Permit], None]") -> None:
        self._give_back: Callable[[Permit], None] | None = give_back
        self.is_lost = False
        """Someone else may have it now: what it allowed must stop."""
        self.on_lost: Callable[[], None] | None = None
        """Told when it is lost."""

    def release(self) -> None:
        """Give it back; further calls do nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self)

    def lose(self) -> None:
        """Say that it holds no longer."""
        self.is_lost = True
        self._give_back = None
        if self.on_lost is not None:
            self.on_lost()


class Limiter(Protocol):
    """One limit, as one process sees it."""

    name: str
    settings: LimitSettings
    on_change: list[Callable[[], None]]
    """Called when `trouble` has changed."""

    @property
    def trouble(self) -> str | None:
        """Why the limit cannot be kept over the fleet, in one sentence; `None` when it can."""

    @property
    def is_contended(self) -> bool:
        """Whether somebody waits for a permit: whoever holds one without using it should give it back soon."""

    def take(self, most: int) -> "asyncio.Future[list[Permit]]":
        """Ask for up to `most` permits; the future has at least one, in turn. Await it by `granted`; `withdraw` it to ask no longer."""

    def at_once(self) -> Permit | None:
        """Return a permit for a call that starts now, its rate included; `None`, and nothing is taken, when it has to wait."""

    async def start(self, most_seconds: float) -> bool:
        """Wait for the moment at which the rate lets one more call start; false, at once, when that is further away."""

    def refused(self) -> None:
        """Count a message that was given back because it had waited for too long."""

    async def run(self) -> None:
        """Do what is to be done in the background until cancelled; then all permits are given back."""


async def granted(wish: "asyncio.Future[list[Permit]]") -> list[Permit]:
    """Return the permits that were asked for; none are lost if the caller is cancelled at the moment they come."""
    try:
        return await wish
    except asyncio.CancelledError:
        withdraw(wish)
        raise


def withdraw(wish: "asyncio.Future[list[Permit]]") -> None:
    """Ask for the permits no longer; those that have come already go back."""
    if not wish.cancel() and not wish.cancelled():
        for permit in wish.result():
            permit.release()
