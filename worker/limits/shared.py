"""A limit that all processes of a fleet keep together, through a store."""

import asyncio
import math
import random
import uuid
from collections.abc import Callable
from itertools import count

import structlog

from worker.limits.limiter import Permit
from worker.limits.local import LocalLimiter
from worker.limits.store import Answer, Claim, PermitStore, StoreError
from worker.settings import LimitSettings
from worker.telemetry.metrics import LimitMetrics

__all__ = ["LEASE_SECONDS", "SharedLimiter"]

LEASE_SECONDS = 30.0
"""How long a process that is not heard of keeps its permits."""
MARGIN_SECONDS = 1.0
"""How long before the store may give our permits to others we count them as lost."""
PATIENCE_SECONDS = 3.0
"""How long the store may be silent before that is a trouble."""
LONGEST_PAUSE_SECONDS = 5.0
LISTEN_SECONDS = 5.0
LEAVE_SECONDS = 2.0

log = structlog.get_logger("limits")


class SharedLimiter(LocalLimiter):
    """A limiter whose free permits come from a store.

    1. One loop talks to the store. Each claim says what is held and what is wanted: it renews, gives back and takes in one
       step, in bulk, and a lost answer is put right by the next.
    2. Claims are made when something changes, when the store wakes us, and at a third of the lease.
    3. What the store gave to others while we were silent is lost: the newest permits first.
    4. Without the store: `closed` gives no permits, and those that are held are lost when their lease ends; `open` goes on
       with an equal share, at least one, for this process.
    """

    def __init__(
        self,
        name: str,
        settings: LimitSettings,
        store: PermitStore,
        metrics: LimitMetrics | None = None,
        *,
        now: Callable[[], float],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`now` is a clock that counts suspension, in seconds."""
        super().__init__(name, settings, metrics)
        self._free = 0
        self._store = store
        self._clock = now
        self._lease_seconds = lease_seconds
        self._owner = uuid.uuid4().hex
        self._numbers = count(1)
        self._changed = asyncio.Event()
        self._in_line = asyncio.Event()
        """Somebody waits for the store."""
        self._others_wait = False
        self._owners: int | None = None
        """How many processes there are, once the store has told."""
        self._ends_at = -math.inf
        """When the permits that are held are another's."""
        self._silent_since: float | None = None
        self._failures = 0
        self.trouble: str | None = None

    @property
    def is_contended(self) -> bool:
        """Whether somebody in the fleet waits for a permit."""
        return self._others_wait or super().is_contended

    def take(self, most: int) -> "asyncio.Future[list[Permit]]":
        """Ask for up to `most` permits."""
        permits = super().take(most)
        if not permits.done():
            self._changed.set()
        return permits

    def at_once(self) -> Permit | None:
        """Return none: permits are the store's."""
        return None

    async def start(self, most_seconds: float) -> bool:
        """Wait for the moment at which one more call may start; while the store is gone, as `fail` says."""
        if self.settings.per_second is None:
            return True
        ends_at = self._clock() + most_seconds
        while True:
            left = max(0.0, ends_at - self._clock())
            try:
                seconds = await self._reserve(self.settings.per_second, left)
            except StoreError as error:
                self._failed(error)
                self._changed.set()
                if not left:
                    return False
                await asyncio.sleep(min(1.0, left))
                continue
            if seconds:
                self.metrics.waited()
                await asyncio.sleep(seconds)
            return seconds is not None

    async def run(self) -> None:
        """Talk to the store until cancelled; then give back all permits."""
        task = asyncio.current_task()
        listener = asyncio.create_task(self._listen(), name=f"limit-listen-{self.name}")
        try:
            while task is None or not task.cancelling():
                self._changed.clear()
                await self._pause(await self._claim())
        finally:
            listener.cancel()
            await self._leave()

    async def _reserve(self, per_second: float, most_seconds: float) -> float | None:
        if self.trouble is not None and self.settings.fail == "open":
            return self._spacing.reserve(per_second / (self._owners or 1), self._loop_time(), most_seconds)
        return await self._store.reserve(per_second, most_seconds)

    async def _claim(self) -> float:
        """Tell the store where we stand, take what it gives, and return the seconds after which to do so again."""
        sent = self._clock()
        wanted = sum(wish.most for wish in self._line if not wish.permits.done())
        try:
            answer = await self._store.claim(self._where_we_stand(wanted)._replace(is_returning=sent < self._ends_at))
        except StoreError as error:
            self._failed(error)
            return self._until_next_try()
        self._answered(answer, sent)
        if self._waiting():
            self._in_line.set()
            return min(self._lease_seconds / 3, answer.look_again_seconds)
        self._in_line.clear()
        return self._lease_seconds / 3

    def _where_we_stand(self, wanted: int, *, is_leaving: bool = False) -> Claim:
        held = 0 if is_leaving else len(self._held)
        return Claim(self._owner, next(self._numbers), held, wanted, self.settings.concurrency, self._lease_seconds, is_leaving)  # fmt: skip

    def _answered(self, answer: Answer, sent: float) -> None:
        self._ends_at = sent + self._lease_seconds - MARGIN_SECONDS
        self._silent_since, self._failures = None, 0
        self._others_wait = answer.others_wait > 0
        self._owners = answer.owners
        if self.trouble is not None:
            self.trouble = None
            log.warning("limit kept again", limit=self.name)
            self._tell()
        self._lose(len(self._held) - answer.kept)
        self._free = answer.granted
        self._serve()
        if self._free:  # who wanted them is gone: the next claim gives them back
            self._changed.set()
        self._free = 0

    def _failed(self, error: StoreError) -> None:
        now = self._clock()
        self.metrics.store_error()
        self._failures += 1
        if self._silent_since is None:
            self._silent_since = now
        if self.trouble is None and (now - self._silent_since >= PATIENCE_SECONDS or now >= self._ends_at):
            self.trouble = self._sentence(error)
            log.error("limit not kept together", limit=self.name, fail=self.settings.fail, cause=self.trouble)
            self._tell()
        if self.trouble is None:
            return
        if self.settings.fail == "open":
            self._free = max(0, self._share - len(self._held))
            self._serve()
        elif now >= self._ends_at:
            self._lose(len(self._held))

    def _sentence(self, error: StoreError) -> str:
        if self.settings.fail == "closed":
            return f"nothing starts under limit {self.name}, because its store does not answer ({error})"
        numbers = [f"{self._share} at once"] if self.settings.concurrency else []
        if self.settings.per_second:
            numbers.append(f"{self.settings.per_second / (self._owners or 1):g} a second")
        return f"limit {self.name} is kept by this process alone, {' and '.join(numbers)}, because its store does not answer ({error})"

    @property
    def _share(self) -> int:
        """What this process may have without the store; one, when it never heard how many there are."""
        concurrency = self.settings.concurrency or 0
        return min(concurrency, max(1, concurrency // self._owners)) if self._owners else min(concurrency, 1)

    def _until_next_try(self) -> float:
        pause = random.uniform(0.2, 1.0) * min(LONGEST_PAUSE_SECONDS, 0.25 * 2.0 ** min(self._failures, 10))
        until_lost = self._ends_at - self._clock()
        return min(pause, until_lost) if until_lost > 0 else pause

    def _lose(self, many: int) -> None:
        for permit in list(reversed(self._held))[: max(0, many)]:
            del self._held[permit]
            self.metrics.lost()
            permit.lose()
        if many > 0:
            log.warning("permits lost", limit=self.name, count=many)
            self.metrics.held(len(self._held))

    def _tell(self) -> None:
        for listener in self.on_change:
            listener()

    def _returned(self, permit: Permit) -> None:
        if self.trouble is not None and self.settings.fail == "open":
            super()._returned(permit)
            self._free = max(0, self._share - len(self._held))
            return
        del self._held[permit]
        self.metrics.held(len(self._held))
        self._changed.set()

    async def _pause(self, seconds: float) -> None:
        """Wait until something has changed; while the store fails, for all of the time."""
        if self._failures:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(max(0.001, seconds)):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _listen(self) -> None:
        """While somebody waits in line, let the store wake us."""
        while True:
            await self._in_line.wait()
            try:
                await self._store.until_woken(self._owner, LISTEN_SECONDS)
            except StoreError:  # the claims notice it, too
                await asyncio.sleep(1.0)
                continue
            self._changed.set()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._store.claim(self._where_we_stand(0, is_leaving=True))
        except (StoreError, TimeoutError):  # they end with their lease
            log.warning("permits not given back at the end: they end with their lease", limit=self.name)

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()
