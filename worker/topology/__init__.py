"""The AWS resources of a fleet: what the fleet file wants, and the way there."""

from worker.topology.apply import apply
from worker.topology.change import Change
from worker.topology.desired import Queue, Subscription, Topic, Topology, wanted_by

__all__ = ["Change", "Queue", "Subscription", "Topic", "Topology", "apply", "wanted_by"]
