"""Where large payloads may lie."""

from typing import Any

import pytest
from pydantic import ValidationError

from worker.settings import FleetSettings


def fleet(**more: Any) -> FleetSettings:
    return FleetSettings.model_validate({"queues": {"orders": {"handlers": "a:router"}}, **more})


def test_nothing_is_fetched_nor_stored_unless_a_bucket_is_named() -> None:
    settings = fleet(topics={"events": {}})
    assert settings.queues["orders"].large_payloads.buckets == ()
    assert settings.topics["events"].large_payloads.bucket is None


def test_what_the_fleet_says_of_buckets_holds_beside_what_a_queue_says() -> None:
    settings = fleet(
        defaults={"large_payloads": {"buckets": ["payloads"], "max_bytes": 2048}},
        queues={"orders": {"handlers": "a:router", "large_payloads": {"delete": True}}},
    )
    large = settings.queues["orders"].large_payloads
    assert (large.buckets, large.max_bytes, large.delete) == (("payloads",), 2048, True)


@pytest.mark.parametrize("name", ["s3://payloads", "arn:aws:s3:::payloads", "Payloads", "ab", "payloads/", "payloads-"])
def test_a_bucket_is_its_name_alone(name: str) -> None:
    with pytest.raises(ValidationError):
        fleet(defaults={"large_payloads": {"buckets": [name]}})
    with pytest.raises(ValidationError):
        fleet(topics={"events": {"large_payloads": {"bucket": name}}})
