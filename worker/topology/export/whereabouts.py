"""The account and region that an export is for, as somebody names them."""

import re

from worker.errors import UsageError
from worker.topology.place import Place

__all__ = ["place_in"]

_PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-isob-": "aws-iso-b",
    "us-iso-": "aws-iso",
    "eusc-": "aws-eusc",
}
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d")
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)


def place_in(region: str, account: str) -> Place:
    """Return the place; raise `UsageError` unless both can be such."""
    if not _REGION.fullmatch(region):
        raise UsageError(f"the region {region!r} must be one of AWS, such as us-east-1: correct --region")
    if not _ACCOUNT.fullmatch(account):
        raise UsageError(f"the account {account!r} must be twelve digits, such as 123456789012: correct --account")
    partition = next((name for start, name in _PARTITIONS.items() if region.startswith(start)), "aws")
    return Place(partition, region, account)
