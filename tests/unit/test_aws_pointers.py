"""Pointers to S3 as AWS's extended clients write them."""

import pytest

from worker.aws.envelope import decode
from worker.aws.pointers import pointer_body, pointer_in, size_attribute
from worker.message import Attribute, Received
from worker.objects import S3Pointer

PYTHON_1_0_1 = (
    '["software.amazon.payloadoffloading.PayloadS3Pointer", '
    '{"s3BucketName": "payloads", "s3Key": "8f4c1c2e-6f0f-4b35-9d3a-0c8b0c6c2f11"}]'
)
"""What amazon-sqs-extended-client 1.0.1 sends."""
JAVA = PYTHON_1_0_1.replace(" ", "")
"""The same from the Java clients, whose JSON has no spaces."""
LEGACY = JAVA.replace(
    "software.amazon.payloadoffloading.PayloadS3Pointer", "com.amazon.sqs.javamessaging.MessageS3Pointer"
)
POINTER = S3Pointer("payloads", "8f4c1c2e-6f0f-4b35-9d3a-0c8b0c6c2f11")


@pytest.mark.parametrize("body", [PYTHON_1_0_1, JAVA, LEGACY])
@pytest.mark.parametrize("attribute", ["ExtendedPayloadSize", "SQSLargePayloadSize"])
def test_a_pointer_is_told_by_its_attribute_and_its_shape(body: str, attribute: str) -> None:
    assert pointer_in(body, {attribute: "300000"}) == POINTER
    assert pointer_in(body, {"event_type": "order.created"}) is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        '["order.created", {}]',
        '["software.amazon.payloadoffloading.PayloadS3Pointer"]',
        '["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "payloads"}]',
        '["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "", "s3Key": "key"}]',
        '["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": 1, "s3Key": "key"}]',
        '["software.amazon.payloadoffloading.PayloadS3Pointer", ',
    ],
)
def test_what_has_the_attribute_only_is_a_payload(body: str) -> None:
    assert pointer_in(body, {"ExtendedPayloadSize": "1"}) is None


def test_we_write_what_the_python_client_writes() -> None:
    assert pointer_body(POINTER) == PYTHON_1_0_1
    assert size_attribute(300_000) == {"ExtendedPayloadSize": Attribute("Number", "300000")}


def test_a_pointer_inside_an_envelope_looks_the_same() -> None:
    quoted = PYTHON_1_0_1.replace('"', '\\"')
    body = (
        '{"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:000000000000:orders", "MessageId": "1", '
        f'"Message": "{quoted}", "MessageAttributes": {{"ExtendedPayloadSize": {{"Type": "Number", "Value": "300000"}}}}}}'
    )
    decoded = decode(Received("1", "receipt", body), "auto")
    assert pointer_in(decoded.body, decoded.attributes) == POINTER
