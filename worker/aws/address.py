"""Where a queue or topic lies, seen from the clients: addresses that they cannot reach are refused."""

from worker.errors import UsageError
from worker.settings.address import Address

__all__ = ["queue_address", "topic_address"]


def queue_address(text: str, region: str) -> Address:
    """Read a queue's name, ARN or URL; raise `UsageError` when it is none or lies outside `region`."""
    try:
        return _reachable(text, Address.of_queue(text), region)
    except ValueError as error:
        raise UsageError(f"{text!r} must be {error}") from None


def topic_address(text: str, region: str) -> Address:
    """Read a topic's name or ARN; raise `UsageError` when it is neither or lies outside `region`."""
    try:
        return _reachable(text, Address.of_topic(text), region)
    except ValueError as error:
        raise UsageError(f"{text!r} must be {error}") from None


def _reachable(text: str, address: Address, region: str) -> Address:
    if address.region not in {None, region}:
        raise UsageError(
            f"{text} lies in the region {address.region}, but this fleet runs in {region}: correct the address or aws.region"
        )
    return address
