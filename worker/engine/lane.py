"""`Lane`: messages that are handled one after another in one slot."""

from collections import deque
from itertools import takewhile

from worker.engine.delivery import Cause, Delivery
from worker.engine.slots import Slot

__all__ = ["Lane"]


class Lane:
    """The messages of one FIFO group that are in hand, in order; on a standard queue, the receives of one message.

    It holds one slot until its last message has ended.
    """

    __slots__ = ("deliveries", "key", "slot")

    def __init__(self, key: str, slot: Slot) -> None:
        self.key = key
        self.slot = slot
        self.deliveries: deque[Delivery] = deque()
        if slot.permit is not None:
            slot.permit.on_lost = self._permit_lost

    def add(self, delivery: Delivery) -> None:
        """Take in a message, behind the others."""
        self.deliveries.append(delivery)
        if self.slot.permit is not None and self.slot.permit.is_lost:
            delivery.interrupt(Cause.PERMIT_LOST)

    @property
    def is_stuck(self) -> bool:
        """Whether the handler of its first message still runs."""
        return bool(self.deliveries) and self.deliveries[0].run is not None

    def follow(self, delivery: Delivery) -> None:
        """Let a message that was received again come behind the new receive of who is in front of it and has lost its place."""
        in_front = takewhile(lambda other: other is not delivery, self.deliveries)
        if any(other.is_superseded for other in in_front):
            self.deliveries.remove(delivery)
            self.deliveries.append(delivery)

    def remove(self, delivery: Delivery) -> None:
        """Take a message out; most often the first."""
        if self.deliveries[0] is delivery:
            self.deliveries.popleft()
        else:
            self.deliveries.remove(delivery)

    def behind(self, delivery: Delivery) -> list[Delivery]:
        """Return what has to be given back with a message: all that came behind it, up to a newer receive of the same."""
        left: list[Delivery] = []
        for other in self.deliveries:
            if other is not delivery and other.received.id == delivery.received.id:
                break
            if other is not delivery:
                left.append(other)
        return left

    def _permit_lost(self) -> None:
        for delivery in list(self.deliveries):
            delivery.interrupt(Cause.PERMIT_LOST)
