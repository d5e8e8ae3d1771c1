"""`MemoryPermits`: a store of permits in memory, shared by limiters that stand for processes; in virtual time, too."""

import asyncio
import math

from worker.limits import Answer, Claim, StoreError
from worker.limits.local import Spacing

__all__ = ["MemoryPermits"]


class MemoryPermits:
    """What `limits.redis` does in Redis, by the running loop's clock."""

    def __init__(self) -> None:
        self.is_down = False
        """Set it, and every call fails."""
        self.most_held = 0
        """The most permits that were given at once."""
        self._ends_at: dict[str, float] = {}
        self._held: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._line: list[str] = []
        self._wakes: dict[str, asyncio.Event] = {}
        self._spacing = Spacing()
        self._hears_until = -math.inf
        """When all who hold permits have said so, after the store had lost its data."""

    @property
    def held(self) -> int:
        """Permits that are given and have not ended."""
        self._forget_the_dead()
        return sum(self._held.values())

    async def claim(self, claim: Claim) -> Answer:
        """Keep, take and give back in one step."""
        await self._reach()
        self._forget_the_dead()
        if claim.number <= self._numbers.get(claim.owner, 0):
            raise StoreError("a later claim of this owner was answered already")
        if claim.is_returning and claim.owner not in self._ends_at and self._hears_until <= _now():
            self._hears_until = _now() + claim.lease_seconds / 2
        known = self._held.get(claim.owner, 0)
        others = sum(self._held.values()) - known
        kept, free, granted = claim.held, 0, 0
        if claim.places is not None:
            if kept > known:
                kept = known + max(0, min(kept - known, claim.places - others - known))
            free = claim.places - others - kept if self._hears_until <= _now() else 0
        if claim.is_leaving:
            self._forget(claim.owner)
        else:
            granted = self._granted(claim, free)
            self._ends_at[claim.owner] = _now() + claim.lease_seconds
            self._held[claim.owner] = kept + granted
            self._numbers[claim.owner] = claim.number
        self.most_held = max(self.most_held, sum(self._held.values()))
        for owner in self._line[: max(0, free - granted)]:
            self._wake(owner).set()
        ends = [end for owner, end in self._ends_at.items() if owner != claim.owner]
        if self._hears_until > _now():
            ends = [self._hears_until]
        others_wait = sum(owner != claim.owner for owner in self._line)
        return Answer(kept, granted, others_wait, len(self._ends_at), min(ends, default=math.inf) - _now() + 0.01)

    async def until_woken(self, owner: str, seconds: float) -> None:
        """Return when there may be a permit for the owner."""
        await self._reach()
        wake = self._wake(owner)
        try:
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return
        wake.clear()

    async def reserve(self, per_second: float, most_seconds: float) -> float | None:
        """Take the next moment at which a call may start."""
        await self._reach()
        return self._spacing.reserve(per_second, _now(), most_seconds)

    async def doubts(self) -> list[str]:
        """Have none."""
        return []

    async def close(self) -> None:
        """Nothing is open."""

    def _granted(self, claim: Claim, free: int) -> int:
        if not claim.wanted:
            if claim.owner in self._line:
                self._line.remove(claim.owner)
            return 0
        if claim.owner not in self._line:
            self._line.append(claim.owner)
        if free <= self._line.index(claim.owner):
            return 0
        self._line.remove(claim.owner)
        return max(1, min(claim.wanted, free - len(self._line)))

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreError("the test said so")

    def _forget_the_dead(self) -> None:
        for owner in [owner for owner, end in self._ends_at.items() if end <= _now()]:
            self._forget(owner)

    def _forget(self, owner: str) -> None:
        for table in (self._ends_at, self._held, self._numbers):
            table.pop(owner, None)
        if owner in self._line:
            self._line.remove(owner)

    def _wake(self, owner: str) -> asyncio.Event:
        return self._wakes.setdefault(owner, asyncio.Event())


def _now() -> float:
    return asyncio.get_running_loop().time()
