"""Which topics are the fleet's own: the others are referred to, never made."""

from worker.errors import UsageError
from worker.topology.desired import Topology
from worker.topology.place import Place

__all__ = ["check_not_empty", "own_topic"]


def own_topic(address: str, topology: Topology, place: Place | None) -> str | None:
    """Return the name of the fleet's own topic that a name or ARN means; `None` where it is somebody else's."""
    name = address.rpartition(":")[2]
    is_here = address == name or address in topology.addresses or (place is not None and place.has(address))
    return name if is_here and name in {topic.name for topic in topology.topics} else None


def check_not_empty(topology: Topology) -> None:
    """Raise `UsageError` when there is nothing to make."""
    if not topology.topics and not topology.queues:
        raise UsageError("there is nothing to export: every topic and queue of the fleet file is external")
