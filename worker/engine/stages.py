"""What the dispatcher asks of the stages that it does not know: run a message, keep its lease, settle it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from worker.engine.delivery import Delivery
from worker.engine.memory import DoneMemory
from worker.engine.verdict import Rules
from worker.outcome import Fate

__all__ = ["Executes", "Keeps", "Settles", "Stages"]


class Executes(Protocol):
    """One message to one outcome."""

    async def execute(self, delivery: Delivery) -> Fate | None:
        """Run the message and return what happened; `None` when nothing is known of it and it is to be run again."""

    async def execute_together(self, lane: Sequence[Delivery]) -> list[Fate | None]:
        """Run the first message and as many that follow as are handled together; return what happened to each."""

    def quiet(self) -> None:
        """Nothing more comes to be handled together."""


class Keeps(Protocol):
    """The table of leases."""

    def hold(self, delivery: Delivery) -> None:
        """Keep the message hidden from others until it is let go."""

    def let_go(self, delivery: Delivery) -> None:
        """Forget the lease."""


class Settles(Protocol):
    """Outcomes as SQS calls."""

    @property
    def done(self) -> DoneMemory:
        """Messages that are done and not surely deleted."""

    async def settle(self, delivery: Delivery, fate: Fate, rules: Rules) -> Fate:
        """Do what the fate asks for and return what was done."""

    async def close(self) -> None:
        """End what is still on the wire."""


class Stages(NamedTuple):
    """The stages behind the dispatcher, as `consumer.py` wires them."""

    executor: Executes
    keeper: Keeps
    settlement: Settles
