"""Publishing line after line: at a rate, with an account of what surely went out, until the end, an error or Ctrl-C."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from worker.cli.publish_input import Line
from worker.errors import Fault
from worker.publisher import Outgoing, Publisher, PublishError, Receipt
from worker.publisher.lines import LineError

__all__ = ["Pace", "Sending"]

SHORTEST_SLEEP_SECONDS: Final = 0.002
LONGEST_DEBT_SECONDS: Final = 1.0
"""A rate that could not be kept for a while is not made up for by more than this."""

Read = Callable[[Line], Outgoing]
Account = tuple[int, Receipt | PublishError | LineError]


class Pace:
    """Lets at most `rate` events a second pass, evenly."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._due: float | None = None

    async def wait(self) -> None:
        """Return when the next event may go."""
        now = asyncio.get_running_loop().time()
        due = now if self._due is None else max(self._due, now - LONGEST_DEBT_SECONDS)
        self._due = due + self._interval
        if due - now >= SHORTEST_SLEEP_SECONDS:
            await asyncio.sleep(due - now)


class Sending:
    """Publishes lines in their order and keeps account of them.

    It ends at the last line, at `stop`, at a broken line unless `skips_bad`, or at an event that was not published;
    what SNS has been given by then is waited for.
    """

    def __init__(
        self, publisher: Publisher, read: Read, *, pace: Pace | None = None, skips_bad: bool = False, next_line: int = 1
    ) -> None:
        self._publisher = publisher
        self._read = read
        self._pace = pace
        self._skips_bad = skips_bad
        self._stopping = asyncio.Event()
        self._accounts: asyncio.Queue[Account | None] = asyncio.Queue()
        self.published = 0
        self.failed = 0
        self.skipped: list[tuple[int, LineError | PublishError]] = []
        """Broken lines and what is wrong with them."""
        self.error: LineError | PublishError | None = None
        """Why it ended before its time, if it did."""
        self.next_line = next_line
        """Every line before it was surely published, or skipped."""
        self.published_later = 0
        """How many lines after `next_line` were published too."""
        self.on_account: Callable[[], object] = lambda: None
        """Called after each line."""
        self.is_complete = False
        """Whether it came to the last line."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, or ends because of an error."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Publish what was read, and no more."""
        self._stopping.set()

    async def run(self, lines: AsyncIterator[Line]) -> None:
        """Publish until the end."""
        stopping = asyncio.create_task(self._stopping.wait())
        feeding = asyncio.create_task(self._feed(lines))
        accounting = asyncio.create_task(self._keep_account())
        try:
            await asyncio.wait({stopping, feeding}, return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()
            await asyncio.wait({feeding})
            self._accounts.put_nowait(None)
            await accounting
        finally:
            for task in (stopping, feeding, accounting):
                task.cancel()
        if not feeding.cancelled():
            feeding.result()
            self.is_complete = self.error is None

    async def _feed(self, lines: AsyncIterator[Line]) -> None:
        async for line in lines:
            try:
                outgoing = self._read(line)
                if self._pace is not None:
                    await self._pace.wait()
                account: Account = (line.number, await self._publisher.submit(outgoing))
            except (LineError, PublishError) as error:
                account = (line.number, error)
                if not self._skips_bad:
                    self._accounts.put_nowait(account)
                    return
            self._accounts.put_nowait(account)

    async def _keep_account(self) -> None:
        while (account := await self._accounts.get()) is not None:
            number, outcome = account
            try:
                if not isinstance(outcome, Receipt):
                    raise outcome
                await outcome
            except (LineError, PublishError) as error:
                self._failed(number, error)
            else:
                self.published += 1
                self.published_later += self.error is not None
            if self.error is None:
                self.next_line = number + 1
            self.on_account()

    def _failed(self, number: int, error: LineError | PublishError) -> None:
        is_bad = isinstance(error, LineError) or error.fault is Fault.INVALID
        if is_bad and self._skips_bad:
            self.skipped.append((number, error))
            return
        self.failed += isinstance(error, PublishError)
        if self.error is None:
            self.error, self.next_line = error, number
        self.stop()
