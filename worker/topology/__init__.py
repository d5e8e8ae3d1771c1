"""The AWS resources of a fleet: what the fleet file wants, how far AWS is from it, and the way there."""

from worker.topology.apply import apply, carry_out
from worker.topology.change import Action, Change, Difference, Plan
from worker.topology.desired import Alarm, Queue, Subscription, Topic, Topology
from worker.topology.plan import plan
from worker.topology.wanted import wanted_by

__all__ = [
    "Action",
    "Alarm",
    "Change",
    "Difference",
    "Plan",
    "Queue",
    "Subscription",
    "Topic",
    "Topology",
    "apply",
    "carry_out",
    "plan",
    "wanted_by",
]
