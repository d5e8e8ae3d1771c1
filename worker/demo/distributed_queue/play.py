"""A burst of notices, as in the comments under the Distributed Queue Pattern, and an SMS API that is slow for a while."""

import asyncio
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.demo.demo import INTERRUPTED, PATIENCE_SECONDS, verdict
from worker.demo.distributed_queue.books import RECORDS, SMS, NoticeBooks
from worker.demo.distributed_queue.stage import ALLOWANCE, WORKERS, Stage, set_up
from worker.demo.show import Show
from worker.handlers.notices import NOTICE_REQUESTED, SEND_SMS, Notice
from worker.publisher import Outgoing

__all__ = ["Burst"]

LOOK_SECONDS: Final = 0.25
LONGEST_SPELL_SECONDS: Final = 4.0
SLOW_TIMES: Final = 5
"""How much longer a call takes while the API is slow."""
_PUBLISHED: Final = "published"
_ACTIONS: Final = (SEND_SMS, "sendEmail", SEND_SMS, None)
"""What notices ask for, in turn; some have no attribute `action` at all."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What is to happen."""

    events: int = 400
    """All published at once; half of them ask for an SMS."""
    database: str | None = None
    """URL of the notices' database; unset, an SQLite file that goes with the demo."""
    redis: str | None = None
    """URL of the Redis that workers count in; unset, one of our own, where there is a `redis-server`."""
    call_seconds: float = 0.2
    """How long the SMS API takes for a call."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Settings of the fleet file that are to be others, as the environment says them."""

    @property
    def spell_seconds(self) -> float:
        """How long the SMS API is slow, from a third of the SMS on."""
        return min(LONGEST_SPELL_SECONDS, self.events * self.call_seconds / ALLOWANCE / 4)

    async def play(self, show: Show, folder: Path) -> int:
        """Let it happen; return the exit status."""
        return await _Play(show, self).run(folder)


class _Play:
    """Runs the fleet of `config/distributed-queue.yaml` on the embedded AWS and checks its books."""

    def __init__(self, show: Show, burst: Burst) -> None:
        self._show = show
        self._burst = burst
        self._books: NoticeBooks | None = None
        self._seconds: dict[str, float] = {}
        """Since the burst began: how long publishing took, and until each queue had nothing left to do."""

    async def run(self, folder: Path) -> int:
        """Return the exit status; Ctrl-C and SIGTERM drain the workers, and the second time kill them."""
        performance = asyncio.create_task(self._perform(folder), name="performance")
        with _Stop(performance) as stop:
            try:
                return await performance
            except asyncio.CancelledError:
                if not stop.is_told:
                    raise
        if self._books is not None:
            self._show.result(self._books)
        self._show.say("interrupted: what was still in the queues is gone with the embedded AWS")
        return INTERRUPTED

    async def _perform(self, folder: Path) -> int:
        burst = self._burst
        self._show.say(f"starting the embedded AWS, an SMS API that takes {ALLOWANCE} calls at once, and workers ...")
        async with set_up(
            folder,
            database=burst.database or f"sqlite:///{folder / 'notices.sqlite'}",
            redis=burst.redis,
            latency_seconds=burst.call_seconds,
            variables=burst.variables,
        ) as stage:
            self._books = stage.books
            self._say_who_works(stage)
            is_complete = await self._watch(stage)
            endings = await stage.close()
        return self._verdict(stage.books, endings, is_complete=is_complete)

    def _say_who_works(self, stage: Stage) -> None:
        addresses = stage.workers.addresses
        self._show.say(f"status pages: {'  '.join(f'{address}/' for address in addresses)}")
        if len(addresses) == WORKERS:
            self._show.say(f"{len(addresses)} workers keep to the limit together: they count calls in Redis")
        else:
            self._show.say(
                "one worker, whose limit is the fleet's: without Redis several could not count together; for three, "
                "install redis-server and longshore[redis], or give --redis URL"
            )

    async def _watch(self, stage: Stage) -> bool:
        """Let the burst happen and watch until everything has ended; false when that was not to be."""
        books, seconds = stage.books, self._seconds
        began_at = time.monotonic()
        act = asyncio.create_task(self._act(stage), name="act")
        try:
            with self._show as show:
                while time.monotonic() - began_at < PATIENCE_SECONDS + seconds.get(_PUBLISHED, 0):
                    await stage.look()
                    show.progress(books, stage.workers.addresses[0])
                    if act.done():
                        act.result()  # what it failed with ends the demo
                    if _PUBLISHED in seconds:
                        for name, account in books.accounts.items():
                            if account.is_done:
                                seconds.setdefault(name, time.monotonic() - began_at)
                    if len(seconds) == 1 + len(books.accounts):
                        return True
                    await asyncio.sleep(LOOK_SECONDS)
            return False
        finally:
            act.cancel()
            await asyncio.gather(act, return_exceptions=True)

    async def _act(self, stage: Stage) -> None:
        """Publish everything at once; when a third of the SMS is sent, let the API be slow for a while."""
        run, began_at = secrets.token_hex(4), time.monotonic()
        await stage.publisher.publish_many(_notices(run, self._burst.events))
        self._seconds[_PUBLISHED] = time.monotonic() - began_at
        while len(stage.sms.sent) < stage.books.accounts[SMS].published / 3:  # noqa: ASYNC110 - the API tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        call_seconds, spell_seconds = self._burst.call_seconds, self._burst.spell_seconds
        stage.sms.latency_seconds = call_seconds * SLOW_TIMES
        self._show.say(
            f"the SMS API is slow, for {spell_seconds:.1f} s: a call takes {call_seconds * SLOW_TIMES:.1f} s"
        )
        await asyncio.sleep(spell_seconds)
        stage.sms.latency_seconds = call_seconds
        self._show.say("the SMS API is as quick as before")

    def _verdict(self, books: NoticeBooks, endings: list[str], *, is_complete: bool) -> int:
        show, seconds = self._show, self._seconds
        show.result(books)
        if is_complete:
            show.say(
                f"published in {seconds[_PUBLISHED]:.1f} s, written down after {seconds[RECORDS]:.1f} s, "
                f"all SMS sent after {seconds[SMS]:.1f} s"
            )
        show.say(
            f"at the SMS API: {books.sms.total():,} SMS sent, {books.most_calls} calls at once at most "
            f"({ALLOWANCE} allowed), {books.calls_refused:,} refused (429)"
        )
        show.say(
            f"in the queue of SMS: {books.most_in_flight} messages in flight at most; the others waited there, received by nobody"
        )
        show.say(f"messages received again: {sum(books.redelivered.values()):,}")
        show.console.print()
        balanced = "every notice is written down once, and sent once if it asked for an SMS"
        return verdict(show, [*books.faults(), *endings], is_complete=is_complete, balanced=balanced)


class _Stop:
    """Ctrl-C and SIGTERM cancel a task, and cancel it again, while inside."""

    def __init__(self, task: asyncio.Task[int]) -> None:
        self._task = task
        self.is_told = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.is_told = True
        self._task.cancel()


def _notices(run: str, count: int) -> Iterator[Outgoing]:
    """Yield that many, with ids that no other run has."""
    for number in range(count):
        notice = Notice(notice_id=f"{run}-{number}", to=f"+49151{number:07}", text="Your table is ready.")
        action = _ACTIONS[number % len(_ACTIONS)]
        yield Outgoing(NOTICE_REQUESTED, notice, {"action": action} if action else None)
