"""Policies per role: nothing to spare, nothing with a star, and a sentence where one cannot be written."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from worker.errors import UsageError
from worker.settings import FleetSettings
from worker.topology.export import Role, place_in, policies, policy

PLACE = place_in("eu-west-1", "123456789012")
SQS = "arn:aws:sqs:eu-west-1:123456789012"
KEY = "arn:aws:kms:eu-west-1:123456789012:key"


def fleet(**queues: dict[str, Any]) -> FleetSettings:
    """Queues of a fleet with one own topic and one of others."""
    topics = {"events": {}, "payments": {"external": True}}
    described = {name.replace("_", "-"): {"handlers": "a:router", **each} for name, each in queues.items()}
    return FleetSettings.model_validate({"topics": topics, "queues": described})


def statements(role: Role, settings: FleetSettings, **options: Any) -> dict[str, dict[str, Any]]:
    return {each["Sid"]: each for each in policy(role, settings, PLACE, **options)["Statement"]}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)


def test_no_policy_has_a_star() -> None:
    settings = fleet(
        orders={"kms_key": "1234", "alarms": ["events"], "tags": {"a": "b"}, "subscribe": [{"topic": "events"}]},
        mail={"subscribe": [{"topic": "payments", "dead_letter": "lost"}]},
    )
    found = policies(settings, PLACE)
    assert list(found) == ["consumer", "publisher", "scaler", "redriver", "provisioner"]
    assert not [text for text in strings(found) if "*" in text or "?" in text]


def test_a_role_without_work_is_left_out_of_all_and_refused_alone() -> None:
    settings = FleetSettings.model_validate({"queues": {"orders": {"handlers": "a:router", "dead_letter": "none"}}})
    assert list(policies(settings, PLACE)) == ["consumer", "scaler", "provisioner"]
    with pytest.raises(
        UsageError, match=r"^there is nothing to allow to a publisher: the fleet file names no topic of its"
    ):
        policy(Role.PUBLISHER, settings, PLACE)
    with pytest.raises(
        UsageError, match=r"^there is nothing to allow to a redriver: no queue that it is for has a dead-l"
    ):
        policy(Role.REDRIVER, settings, PLACE)


def test_a_publisher_publishes_to_the_fleets_own_topics_only() -> None:
    found = statements(Role.PUBLISHER, fleet(orders={"subscribe": [{"topic": "payments"}]}))
    assert found["Publish"]["Resource"] == ["arn:aws:sns:eu-west-1:123456789012:events"]


def test_a_consumer_reaches_a_queue_of_others_where_it_lies() -> None:
    settings = FleetSettings.model_validate(
        {
            "queues": {
                "https://sqs.us-west-2.amazonaws.com/999999999999/theirs": {
                    "handlers": "a:router",
                    "external": True,
                    "dead_letter": {"queue": "arn:aws:sqs:us-west-2:999999999999:dead"},
                }
            }
        }
    )
    found = statements(Role.CONSUMER, settings)
    assert found["Consume"]["Resource"] == ["arn:aws:sqs:us-west-2:999999999999:theirs"]
    assert found["DeadLetter"]["Resource"] == ["arn:aws:sqs:us-west-2:999999999999:dead"]
    with pytest.raises(UsageError, match=r"nothing to allow to a provisioner: every topic and queue"):
        policy(Role.PROVISIONER, settings, PLACE)


def test_what_lies_elsewhere_cannot_be_provisioned_here() -> None:
    settings = fleet(**{"arn:aws:sqs:eu-west-1:999999999999:orders": {}})
    with pytest.raises(UsageError, match=r"lies in the account 999999999999, but the policies are for 123456789012"):
        policy(Role.CONSUMER, settings, PLACE)


def test_a_deployment_of_some_queues_may_use_those_alone() -> None:
    settings = fleet(orders={}, mail={})
    found = statements(Role.CONSUMER, settings, queues=["mail"])
    assert found["Consume"]["Resource"] == [f"{SQS}:mail"]
    assert found["DeadLetter"]["Resource"] == [f"{SQS}:mail-dlq"]
    with pytest.raises(
        UsageError, match=r"^there is no queue post in the fleet file, only orders, mail: correct --queue$"
    ):
        policy(Role.CONSUMER, settings, PLACE, queues=["post"])
    with pytest.raises(UsageError, match=r"^--queue has no effect on the publisher"):
        policy(Role.PUBLISHER, settings, PLACE, queues=["mail"])


def test_a_key_is_usable_through_the_service_alone() -> None:
    """A reader decrypts; a writer gets data keys and decrypts, too."""
    settings = fleet(orders={"kms_key": "1234", "dead_letter": "none"}, mail={"kms_key": f"{KEY}/5678"})
    found = statements(Role.CONSUMER, settings)
    assert found["DecryptSqs"]["Resource"] == [f"{KEY}/1234", f"{KEY}/5678"]
    assert found["EncryptSqs"]["Resource"] == [f"{KEY}/5678"]  # behind mail lies a dead-letter queue with its key
    assert found["EncryptSqs"]["Action"] == ["kms:GenerateDataKey"]
    assert found["EncryptSqs"]["Condition"] == {"StringEquals": {"kms:ViaService": "sqs.eu-west-1.amazonaws.com"}}
    assert not [name for name in statements(Role.SCALER, settings) if "crypt" in name]
    china = policy(Role.CONSUMER, settings, place_in("cn-north-1", "123456789012"))
    assert "sqs.cn-north-1.amazonaws.com.cn" in json.dumps(china)


OUTBOX = {"database": "sqlite:///orders.sqlite", "topics": ["events", "arn:aws:sns:eu-west-1:999999999999:theirs"]}


def test_a_consumer_publishes_to_the_topics_of_its_outbox_alone() -> None:
    """The relay runs in its process: the fleet's own topics and those of others, each where it lies."""
    described = {
        "topics": {"events": {}, "unsent": {"kms_key": "9"}, OUTBOX["topics"][1]: {"external": True}},
        "queues": {"orders": {"handlers": "a:router"}},
    }
    assert "sns:" not in json.dumps(policy(Role.CONSUMER, FleetSettings.model_validate(described), PLACE))
    found = statements(Role.CONSUMER, FleetSettings.model_validate({**described, "outbox": OUTBOX}), queues=["orders"])
    assert found["SendOutbox"]["Action"] == ["sns:Publish"]
    assert found["SendOutbox"]["Resource"] == ["arn:aws:sns:eu-west-1:123456789012:events", OUTBOX["topics"][1]]
    assert not [name for name in found if "crypt" in name]


def test_a_consumer_stores_the_large_payloads_of_its_outbox() -> None:
    described = {
        "topics": {
            "events": {"large_payloads": {"bucket": "ours"}},
            "unsent": {"large_payloads": {"bucket": "theirs"}},
        },
        "queues": {"orders": {"handlers": "a:router"}},
        "outbox": {"database": "sqlite:///orders.sqlite", "topics": ["events"]},
    }
    found = statements(Role.CONSUMER, FleetSettings.model_validate(described), queues=["orders"])
    assert found["StorePayloads"]["Action"] == ["s3:PutObject"]
    assert found["StorePayloads"]["Resource"] == ["arn:aws:s3:::ours/*"]


def test_a_consumer_uses_the_keys_of_its_outbox_through_sns_and_those_of_its_queues_through_sqs() -> None:
    settings = FleetSettings.model_validate(
        {
            "topics": {"events": {"kms_key": "5678"}},
            "queues": {"orders": {"handlers": "a:router", "kms_key": "1234"}},
            "outbox": {"database": "sqlite:///orders.sqlite", "topics": ["events"]},
        }
    )
    found = policy(Role.CONSUMER, settings, PLACE)["Statement"]
    assert len({each["Sid"] for each in found}) == len(found)  # IAM refuses a policy that has one twice
    keys = {each["Sid"]: (each["Action"], each["Resource"], each["Condition"]) for each in found if "Condition" in each}
    through = {name: {"StringEquals": {"kms:ViaService": f"{name}.eu-west-1.amazonaws.com"}} for name in ("sqs", "sns")}
    assert keys == {
        "DecryptSqs": (["kms:Decrypt"], [f"{KEY}/1234"], through["sqs"]),
        "EncryptSqs": (["kms:GenerateDataKey"], [f"{KEY}/1234"], through["sqs"]),
        "DecryptSns": (["kms:Decrypt"], [f"{KEY}/5678"], through["sns"]),
        "EncryptSns": (["kms:GenerateDataKey"], [f"{KEY}/5678"], through["sns"]),
    }


def test_the_key_behind_an_alias_must_be_told() -> None:
    settings = fleet(orders={"kms_key": "alias/orders"})
    with pytest.raises(UsageError, match=r"^kms_key is alias/orders, but IAM knows .* with --key alias/orders=KEY_ID$"):
        policy(Role.CONSUMER, settings, PLACE)
    found = statements(Role.CONSUMER, settings, keys={"alias/orders": "1234"})
    assert found["EncryptSqs"]["Resource"] == [f"{KEY}/1234"]
    whole = fleet(orders={"kms_key": "arn:aws:kms:eu-west-1:123456789012:alias/orders"})
    assert statements(Role.CONSUMER, whole, keys={"alias/orders": "1234"}) == found


def test_keys_of_aws_need_no_permission() -> None:
    settings = fleet(orders={"kms_key": "alias/aws/sqs"})
    assert list(statements(Role.CONSUMER, settings)) == ["Consume", "DeadLetter"]


def test_more_than_iam_takes_is_refused() -> None:
    settings = fleet(**{f"queue-with-quite-a-long-name-{number}": {} for number in range(60)})
    with pytest.raises(
        UsageError, match=r"^the policy of the consumer would have \d+ characters, but IAM takes at most 61"
    ):
        policy(Role.CONSUMER, settings, PLACE)


def test_a_provisioner_may_do_only_what_the_fleet_file_asks_for() -> None:
    """Without tags, alarms and keys nothing is allowed about them."""
    plain = json.dumps(policy(Role.PROVISIONER, fleet(orders={"subscribe": [{"topic": "events"}]}), PLACE))
    for word in ("Tag", "cloudwatch", "SetTopicAttributes", "kms", "Delete", "Unsubscribe"):
        assert word not in plain
