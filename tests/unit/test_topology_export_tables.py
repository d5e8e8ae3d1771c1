"""The DynamoDB table of idempotency marks: what exports make, and what a consumer may do there."""

from worker.settings import FleetSettings
from worker.topology import wanted_by
from worker.topology.export import Role, cloudformation, place_in, policy, terraform

PLACE = place_in("eu-west-1", "123456789012")


def fleet(store: str | None) -> FleetSettings:
    described = {"idempotency": {"store": store}, "queues": {"orders": {"handlers": "a:router"}}}
    return FleetSettings.model_validate(described)


def test_cloudformation_makes_the_table_that_forgets() -> None:
    resources = cloudformation(wanted_by(fleet("dynamodb://shop-marks")))["Resources"]
    assert resources["ShopMarksTable"] == {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": "shop-marks",
            "AttributeDefinitions": [{"AttributeName": "key", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
        },
        "DeletionPolicy": "RetainExceptOnCreate",
        "UpdateReplacePolicy": "Retain",
    }


def test_terraform_makes_the_same() -> None:
    assert (
        'resource "aws_dynamodb_table" "shop_marks" {\n'
        '  name         = "shop-marks"\n'
        '  billing_mode = "PAY_PER_REQUEST"\n'
        '  hash_key     = "key"\n'
        "\n"
        "  attribute {\n"
        '    name = "key"\n'
        '    type = "S"\n'
        "  }\n"
        "\n"
        "  ttl {\n"
        '    attribute_name = "expires_at"\n'
        "    enabled        = true\n"
        "  }\n"
        "\n"
        "  lifecycle {\n"
        "    prevent_destroy = true\n"
        "  }\n"
        "}\n"
    ) in terraform(wanted_by(fleet("dynamodb://shop-marks")))


def test_a_consumer_may_mark_work_in_this_table_alone() -> None:
    (granted,) = [
        each
        for each in policy(Role.CONSUMER, fleet("dynamodb://shop-marks"), PLACE)["Statement"]
        if "dynamodb" in each["Action"][0]
    ]
    assert granted["Resource"] == ["arn:aws:dynamodb:eu-west-1:123456789012:table/shop-marks"]
    assert {action.partition(":")[2] for action in granted["Action"]} == {
        "DescribeTable",
        "GetItem",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
    }


def test_no_other_store_has_a_table_in_aws() -> None:
    for store in ("redis://localhost/0", "sqlite:///marks.sqlite", None):
        assert wanted_by(fleet(store)).tables == ()
        assert "dynamodb" not in str(policy(Role.CONSUMER, fleet(store), PLACE))
