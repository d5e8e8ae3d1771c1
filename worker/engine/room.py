"""How much a queue's consumer may have in hand: what its settings and its handlers' batches come to."""

from worker.router import Router
from worker.settings import QueueSettings
from worker.source import MAX_BATCH

__all__ = ["most_in_hand", "places"]


def places(settings: QueueSettings, router: Router) -> int:
    """Return how many messages may be handled at once: the places that receives reserve.

    On a FIFO queue each place is a lane, for as many messages of one group as one receive brings.
    """
    return settings.max_concurrency * router.largest_batch


def most_in_hand(settings: QueueSettings, router: Router) -> int:
    """Return how many messages may at most be received and not settled (R1)."""
    return settings.max_concurrency * max(router.largest_batch, MAX_BATCH if settings.is_fifo else 1)
