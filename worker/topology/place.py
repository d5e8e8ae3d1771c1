"""`Place`: the account and region that a topology lies in, and the ARNs that follow from it."""

from dataclasses import dataclass

from worker.aws.address import queue_address, topic_address
from worker.errors import UsageError

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the credentials and the region lead."""

    partition: str
    region: str
    account: str

    def queue_arn(self, name: str) -> str:
        """Return the ARN of a queue here."""
        return f"arn:{self.partition}:sqs:{self.region}:{self.account}:{name}"

    def topic_arn(self, address: str) -> str:
        """Return the ARN of a topic here by its name; an ARN is returned as it is."""
        return (
            address
            if address.startswith("arn:")
            else f"arn:{self.partition}:sns:{self.region}:{self.account}:{address}"
        )

    def has(self, arn: str) -> bool:
        """Whether a topic lies here, told by its ARN."""
        return arn == self.topic_arn(arn.rpartition(":")[2])

    def check(self, address: str) -> None:
        """Raise `UsageError` unless a topic (its ARN) or a queue (ARN or URL) lies here: elsewhere none can be made."""
        read = topic_address if ":sns:" in address else queue_address
        account = read(address, self.region).account
        if account not in {None, self.account}:
            raise UsageError(
                f"{address} lies in the account {account}, but the credentials belong to {self.account}: "
                f"use those of {account}, or say external: true where it is somebody else's"
            )
