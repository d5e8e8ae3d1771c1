"""The queues, topics and alarms of a fleet as ARNs: what a policy can name."""

from collections.abc import Iterable, Sequence
from itertools import chain

from worker.errors import UsageError
from worker.settings.address import Address
from worker.settings.fleet import FleetSettings
from worker.settings.queue import QueueSettings
from worker.topology.desired import Queue, levels
from worker.topology.place import Place
from worker.topology.wanted import wanted_by

__all__ = ["Reach"]


class Reach:
    """What the queues of a fleet, or some of them, lead to; external ones too, as they must be consumed all the same.

    Raises `UsageError` for a queue that the fleet has not, and where the fleet's own lie in another account or region.
    """

    def __init__(self, fleet: FleetSettings, place: Place, only: frozenset[str] = frozenset()) -> None:
        for name in sorted(only - fleet.queues.keys()):
            raise UsageError(
                f"there is no queue {name} in the fleet file, only {', '.join(fleet.queues)}: correct --queue"
            )
        self._place = place
        self._consumed = [queue for queue in fleet.queues.values() if not only or queue.name in only]
        topology = wanted_by(fleet)
        self.provisioned: Sequence[Queue] = [*chain.from_iterable(levels(topology))]
        """What `apply` makes, dead-letter queues too."""
        for address in topology.addresses:
            self._check(address)
        self._addresses = {queue.name: queue.address for queue in fleet.queues.values()}
        self._keys = {queue.name: queue.kms_key for queue in fleet.queues.values()}
        for queue in fleet.queues.values():
            for behind in _behind(queue):
                self._addresses.setdefault(Address.of_queue(behind).name, behind)
                self._keys.setdefault(Address.of_queue(behind).name, queue.kms_key)

    @property
    def queues(self) -> list[str]:
        """Names of what is consumed."""
        return [queue.name for queue in self._consumed]

    @property
    def nets(self) -> list[str]:
        """Names of the dead-letter queues behind them, which handlers' failures go to."""
        return [queue.dead_letter.name for queue in self._consumed if not isinstance(queue.dead_letter, str)]

    @property
    def dead_letters(self) -> list[str]:
        """Names of those, and of the queues that take what SNS could not deliver."""
        return [Address.of_queue(behind).name for queue in self._consumed for behind in _behind(queue)]

    @property
    def payloads(self) -> list[str]:
        """Names of the buckets that large payloads are fetched from."""
        return [bucket for queue in self._consumed for bucket in queue.large_payloads.buckets]

    @property
    def emptied(self) -> list[str]:
        """Names of the buckets that payloads are deleted from."""
        return [
            bucket for queue in self._consumed if queue.large_payloads.delete for bucket in queue.large_payloads.buckets
        ]

    def bucket(self, name: str) -> str:
        """Return the ARN of a bucket."""
        return f"arn:{self._place.partition}:s3:::{name}"

    def objects(self, buckets: Iterable[str]) -> list[str]:
        """Return the ARNs of all objects in buckets."""
        return [f"{self.bucket(name)}/*" for name in buckets]

    def table(self, name: str) -> str:
        """Return the ARN of a DynamoDB table."""
        return f"arn:{self._place.partition}:dynamodb:{self._place.region}:{self._place.account}:table/{name}"

    @property
    def mourning(self) -> list[str]:
        """Names of the queues that have dead letters at all."""
        return [queue.name for queue in self._consumed if _behind(queue)]

    def arns(self, queues: Iterable[str]) -> list[str]:
        """Return the ARNs of queues by their names."""
        return [self.queue(queue) for queue in queues]

    def keys(self, queues: Iterable[str]) -> list[str]:
        """Return the KMS keys of queues by their names, as the fleet file names them."""
        return [key for queue in queues if (key := self._keys[queue]) is not None]

    def queue(self, name: str) -> str:
        """Return the ARN of a queue, which may be somebody else's."""
        address = Address.of_queue(self._addresses[name])
        place = self._place
        return f"arn:{place.partition}:sqs:{address.region or place.region}:{address.account or place.account}:{name}"

    def topic(self, address: str) -> str:
        """Return the ARN of a topic by its name or ARN."""
        return self._place.topic_arn(address)

    def alarm(self, name: str) -> str:
        """Return the ARN of an alarm."""
        return f"arn:{self._place.partition}:cloudwatch:{self._place.region}:{self._place.account}:alarm:{name}"

    def is_here(self, topic: str) -> bool:
        """Whether a topic lies in this account and region, told by its ARN."""
        return self._place.has(topic)

    def _check(self, text: str) -> None:
        address = Address.of_topic(text) if ":sns:" in text else Address.of_queue(text)
        for kind, found, here in (
            ("region", address.region, self._place.region),
            ("account", address.account, self._place.account),
        ):
            if found not in {None, here}:
                raise UsageError(
                    f"{text} lies in the {kind} {found}, but the policies are for {here}: correct the address or --{kind}, "
                    f"or say external: true where it is somebody else's"
                )


def _behind(queue: QueueSettings) -> list[str]:
    """Return the addresses of a queue's dead-letter queues."""
    net = [] if isinstance(queue.dead_letter, str) else [queue.dead_letter.queue]
    return list(dict.fromkeys([*net, *(each.dead_letter for each in queue.subscribe if each.dead_letter)]))
