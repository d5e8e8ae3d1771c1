"""What the fleet file alone tells of topics: whose they are, where they lie, and what statements let them write."""

from collections.abc import Iterable

from worker.errors import UsageError
from worker.topology.desired import Topology
from worker.topology.place import Place
from worker.topology.policies import Statement, check_size, merged, statement_for

__all__ = ["Topics", "check_not_empty"]

_HERE = Place("aws", "us-east-1", "ACCOUNT-HERE")
"""Where the export will be applied: no real place, but as long as one."""


class Topics:
    """Tells from a name or an ARN what topic is meant.

    A name is one where the export is applied. An ARN is, too, if one of the fleet's own topics or queues is written as an
    ARN of the same account and region; else it is taken for one elsewhere.
    """

    def __init__(self, topology: Topology) -> None:
        self._own = {topic.name for topic in topology.topics}
        self._here = {"", *(_place(address).replace(":sqs:", ":sns:") for address in topology.addresses)}

    def own(self, address: str) -> str | None:
        """Return the name of the fleet's own topic; `None` where it is somebody else's: referred to, never made."""
        name = self._shortened(address)
        return name if name in self._own else None

    def statements(self, queue: str, topics: Iterable[str]) -> list[Statement]:
        """Return what lets `topics` write to a queue, with the ids that `apply` writes; its ARNs are placeholders.

        Raises `UsageError` for more than SQS takes as a policy.
        """
        written = [statement_for(_HERE.topic_arn(self._shortened(topic)), _HERE.queue_arn(queue)) for topic in topics]
        check_size(queue, merged({}, written))
        return written

    def _shortened(self, address: str) -> str:
        return address.rpartition(":")[2] if _place(address) in self._here else address


def check_not_empty(topology: Topology) -> None:
    """Raise `UsageError` when there is nothing to make."""
    if not topology.topics and not topology.queues:
        raise UsageError("there is nothing to export: every topic and queue of the fleet file is external")


def _place(address: str) -> str:
    """Return an ARN up to its account; nothing of a name."""
    return address.rpartition(":")[0]
