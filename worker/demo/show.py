"""What the demo prints: a live table on a terminal, plain lines elsewhere, the final table in both."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.demo.books import Accounts, Books
from worker.demo.shop import Shop

__all__ = ["Show"]

LINE_SECONDS = 2.0
LINE_COLUMN = len("2000/2000")
WIDTH_ELSEWHERE = 100


class Show:
    """Shows the books while they fill."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=WIDTH_ELSEWHERE, file=self.console.file)
        self._live: Live | None = None
        self._began_at = self._said_at = time.monotonic()
        self._lines = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # fmt: skip
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a line, above the live table where there is one."""
        self.console.print(text, soft_wrap=True)

    def progress(self, books: Accounts, note: str) -> None:
        """Show how far the books are; a line every two seconds where there is no terminal."""
        if self._live is not None:
            footer = Table.grid()  # a bar alone ends without a line break
            footer.add_row(ProgressBar(total=max(1, books.published), completed=books.ended, width=60))
            footer.add_row(Text(note, style="dim"))
            self._live.update(Group(table(books), footer), refresh=True)
            return
        now = time.monotonic()
        if now - self._said_at >= LINE_SECONDS:
            if not self._lines:
                names = (name.partition("-")[0].rjust(LINE_COLUMN) for name in books.accounts)
                self.say("  ".join(["handled", *names]))
            self._said_at, self._lines = now, self._lines + 1
            counts = (
                f"{account.handled}/{account.published}".rjust(LINE_COLUMN) for account in books.accounts.values()
            )
            self.say("  ".join([f"{now - self._began_at:5.1f} s", *counts]))

    def result(self, books: Accounts) -> None:
        """Print the final table and the reasons of the dead letters."""
        self.console.print(table(books))
        if _has_lags(books):
            self.say("lag: from publishing to the first try; the outage counts until as long after its end")
        reasons = Table("queue", "dead letters", "reason", title="dead letters", title_justify="left", box=None, pad_edge=False)  # fmt: skip
        for name, account in books.accounts.items():
            for reason, count in account.reasons.most_common():
                reasons.add_row(name, str(count), reason)
        if reasons.row_count:
            self.console.print()
            self.console.print(reasons)
        self.console.print()

    def payments(self, books: Books) -> None:
        """Print which steps payments have taken, one after the other, and how many did."""
        ways = (f"{count:,} {', then '.join(steps)}" for steps, count in books.payments.most_common())
        self.say(f"payments: {'; '.join(ways)}")
        self.console.print()

    def placements(self, shop: Shop, mail_seconds: float, outage_seconds: float) -> None:
        """Print what placing an order took and how often it failed, inline and by event, measured in this run."""
        self.say(f"placing an order: a mail takes {_seconds(mail_seconds)}, and the mail server was down for {outage_seconds:.1f} s")  # fmt: skip
        result = Table(box=None, pad_edge=False)
        result.add_column("the order service", no_wrap=True)
        for heading in ("orders placed", "p50", "p99", "failed"):
            result.add_column(heading, justify="right")
        for name, customers in (("does everything inline", shop.inline), ("publishes an event", shop.by_event)):
            seen = customers.placements
            times = (_seconds(seen.quantile(0.5)), _seconds(seen.quantile(0.99)))
            result.add_row(name, f"{len(seen.seconds):,}", *times, f"{seen.failed:,}")
        self.console.print(result)
        inline, by_event = shop.inline.placements.failed_in_outage, shop.by_event.placements.failed_in_outage
        self.say(f"orders failed during the mail outage: inline {inline}, event {by_event}")
        self.console.print()


def table(books: Accounts) -> Table:
    """Return the books as a table, a row per queue, with lags where they are measured; it fits 80 columns."""
    result = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    result.add_column("queue", no_wrap=True, vertical="bottom")
    titles = ["pub-\nlished", "re-\nceived", "handled", "re-\ntried", "dead\nletters"]
    if _has_lags(books):
        titles += ["lag\np50", "lag\np99", "p99 in\noutage"]
    for title in titles:
        result.add_column(title, justify="right", vertical="bottom")
    for name, account in books.accounts.items():
        counts = (account.published, account.received, account.handled, account.retried, account.dead_lettered)
        lags = (account.lag.quantile(0.5), account.lag.quantile(0.99), account.lag_in_outage.quantile(0.99))
        cells = [*(f"{count:,}" for count in counts), *(_seconds(lag) for lag in lags)]
        result.add_row(name, *cells[: len(titles)])
    return result


def _has_lags(books: Accounts) -> bool:
    return any(account.lag.count or account.lag_in_outage.count for account in books.accounts.values())


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
