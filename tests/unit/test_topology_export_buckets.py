"""Buckets of large payloads: what exports make, what roles may do there, and what is warned of."""

from typing import Any

from worker.settings import FleetSettings
from worker.topology import wanted_by
from worker.topology.export import Role, cloudformation, place_in, policy, terraform

PLACE = place_in("eu-west-1", "123456789012")


def fleet(queue: dict[str, Any] | None = None, **large: Any) -> FleetSettings:
    """A queue that fetches what its topic puts into a bucket."""
    described = {
        "topics": {
            "events": {"large_payloads": {"bucket": "our-payloads", **large}},
            "copies": {"large_payloads": {"bucket": "our-payloads", "expire_days": 40}},
            "others": {"external": True, "large_payloads": {"bucket": "their-payloads"}},
        },
        "queues": {
            "orders": {
                "handlers": "a:router",
                "subscribe": [{"topic": "events"}],
                "large_payloads": {"buckets": ["our-payloads", "their-payloads"]},
                **(queue or {}),
            }
        },
    }
    return FleetSettings.model_validate(described)


def allowed(role: Role, settings: FleetSettings) -> dict[str, list[str]]:
    found = policy(role, settings, PLACE)["Statement"]
    return {each["Action"][0]: each["Resource"] for each in found if each["Action"][0].startswith("s3:")}


def test_a_bucket_is_made_once_with_the_longest_rule_of_its_topics() -> None:
    resources = cloudformation(wanted_by(fleet()))["Resources"]
    (bucket,) = [each for each in resources.values() if each["Type"] == "AWS::S3::Bucket"]
    assert bucket["Properties"]["BucketName"] == "our-payloads"
    assert bucket["Properties"]["LifecycleConfiguration"] == {
        "Rules": [{"Id": "large-payloads", "Status": "Enabled", "ExpirationInDays": 40}]
    }
    assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"


def test_terraform_makes_the_same() -> None:
    text = terraform(wanted_by(fleet()))
    assert text.count('resource "aws_s3_bucket" ') == 1
    assert (
        'resource "aws_s3_bucket_lifecycle_configuration" "our_payloads" {\n'
        "  bucket = aws_s3_bucket.our_payloads.id\n"
        "\n"
        "  rule {\n"
        '    id     = "large-payloads"\n'
        '    status = "Enabled"\n'
        "\n"
        "    filter {}\n"
        "\n"
        "    expiration {\n"
        "      days = 40\n"
        "    }\n"
        "  }\n"
        "}\n"
    ) in text
    assert "their" not in text


def test_a_bucket_of_others_is_not_made() -> None:
    settings = FleetSettings.model_validate(
        {
            "topics": {"events": {"large_payloads": {"bucket": "shared", "expire_days": None}}},
            "queues": {"orders": {"handlers": "a:router"}},
        }
    )
    assert wanted_by(settings).buckets == ()


def test_a_consumer_fetches_and_is_told_what_is_not_there() -> None:
    objects = ["arn:aws:s3:::our-payloads/*", "arn:aws:s3:::their-payloads/*"]
    buckets = ["arn:aws:s3:::our-payloads", "arn:aws:s3:::their-payloads"]
    assert allowed(Role.CONSUMER, fleet()) == {"s3:GetObject": objects, "s3:ListBucket": buckets}
    deleting = fleet({"large_payloads": {"buckets": ["our-payloads"], "delete": True}})
    assert allowed(Role.CONSUMER, deleting)["s3:DeleteObject"] == objects[:1]


def test_a_publisher_stores() -> None:
    assert allowed(Role.PUBLISHER, fleet()) == {"s3:PutObject": ["arn:aws:s3:::our-payloads/*"]}


def test_payloads_that_are_gone_before_their_messages_are_warned_of() -> None:
    assert fleet().warnings == ()
    (warning,) = fleet(expire_days=3).warnings
    assert "queues.orders.retention_seconds is 1209600, longer than the 3 days after which our-payloads" in warning
