"""The demo's customers: they place orders over HTTP with both kinds of order service, and look at the clock."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import ClientError, ClientSession, ClientTimeout

from worker.demo.day import Purchase

__all__ = ["Customers", "Placements"]

_PATIENCE = ClientTimeout(total=15)


@dataclass(slots=True)
class Placements:
    """What customers have seen of one order service."""

    seconds: list[float] = field(default_factory=list)
    """How long each order that was placed took."""
    failed: int = 0
    failed_in_outage: int = 0
    """Those that failed while the mail server was down."""

    def quantile(self, share: float) -> float | None:
        """Return the seconds that `share` of the placed orders took at most; `None` before the first."""
        if not self.seconds:
            return None
        return sorted(self.seconds)[math.ceil(share * len(self.seconds)) - 1]


class Customers:
    """Place orders with one order service and keep what they saw."""

    def __init__(self, session: ClientSession, url: str, is_outage: Callable[[], bool] = lambda: False) -> None:
        self._session = session
        self._url = f"{url}/orders"
        self._is_outage = is_outage
        self.placements = Placements()

    async def place(self, purchase: Purchase) -> str | None:
        """Place an order; return its id, or `None` when the order service failed."""
        began_at = time.perf_counter()
        try:
            async with self._session.post(self._url, json=purchase.body, timeout=_PATIENCE) as answer:
                said = await answer.json()
        except (ClientError, TimeoutError):
            self._note_failure()
            return None
        if answer.status != 201:  # noqa: PLR2004 - HTTP's `created`
            self._note_failure()
            return None
        self.placements.seconds.append(time.perf_counter() - began_at)
        return str(said["order_id"])

    def _note_failure(self) -> None:
        self.placements.failed += 1
        self.placements.failed_in_outage += self._is_outage()
