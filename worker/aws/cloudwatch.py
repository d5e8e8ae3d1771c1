"""Amazon CloudWatch, as far as alarms need it."""

from worker.aws.channel import Channel
from worker.aws.session import AwsClients

__all__ = ["ALARMS_PER_CALL", "cloudwatch_channel"]

ALARMS_PER_CALL = 100
"""Names that DescribeAlarms takes."""
_CONNECTIONS = 4


def cloudwatch_channel(clients: AwsClients) -> Channel:
    """Return a channel to CloudWatch with the credentials of `clients`; whoever asks for it closes it."""
    return clients._channel("cloudwatch", _CONNECTIONS)  # noqa: SLF001 - the same room, and no other service is optional
