"""Rules of `worker.topology.desired`."""

from worker.topology import Queue, Subscription, Topology
from worker.topology.desired import levels, writers


def test_a_redrive_policy_finds_its_target() -> None:
    """Dead-letter queues come before the queues that name them, described by the fleet or only named."""
    topology = Topology(
        queues=[Queue("a", dead_letter="b", kms_key="k"), Queue("b", dead_letter="c"), Queue("d", dead_letter="c")],
        subscriptions=[Subscription("t", "d", dead_letter="undelivered")],
    )
    assert [[queue.name for queue in level] for level in levels(topology)] == [["c", "undelivered"], ["b", "d"], ["a"]]


def test_a_dead_letter_queue_that_is_only_named_keeps_messages_longest_and_is_encrypted_alike() -> None:
    ((dead,), _) = levels(
        Topology(queues=[Queue("a", retention_seconds=60, dead_letter="b", kms_key="k", tags={"x": "y"})])
    )
    assert dead == Queue("b", retention_seconds=1_209_600, kms_key="k", tags={"x": "y"}, is_only_named=True)


def test_a_queue_lets_each_of_its_topics_write_once() -> None:
    subscriptions = [
        Subscription("t", "a", dead_letter="u"),
        Subscription("t", "a"),
        Subscription("s", "a", dead_letter="u"),
    ]
    assert writers(Topology(subscriptions=subscriptions)) == {"a": ["t", "s"], "u": ["t", "s"]}
