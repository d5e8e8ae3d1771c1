"""Messages whose payload lies in S3, in a worker process: what is not there, or not ours, is dead-lettered and said; the rest is handled."""

import json

import pytest
from support.shop import Shop

from worker.aws.s3 import S3Objects
from worker.aws.session import AwsClients
from worker.objects import S3Pointer
from worker.source import ReceiveRequest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("embedded_aws")]

PAYLOAD = json.dumps({"n": 1, "note": "secret " * 50_000})


def body_of(bucket: str, key: str) -> str:
    return json.dumps(["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": bucket, "s3Key": key}])


@pytest.mark.parametrize("attribute", ["ExtendedPayloadSize", "SQSLargePayloadSize"])
async def test_a_pointer_to_nothing_or_to_a_foreign_bucket_is_a_dead_letter(
    shop: Shop, aws_clients: AwsClients, attribute: str
) -> None:
    """With its reason, after one receive, and its body as it was; a bucket that is not allowed is not even asked."""
    ours, theirs = f"{shop.queue}-ours", f"{shop.queue}-theirs"
    objects = S3Objects(aws_clients, connections=1)
    for bucket in (ours, theirs):
        await objects._channel.call("create_bucket", Bucket=bucket)
        await objects.put(S3Pointer(bucket, "there"), PAYLOAD.encode())
    await objects.close()
    shop.configure(large_payloads={"buckets": [ours]}, wait_time_seconds=1, visibility_timeout_seconds=30)
    pointers = [body_of(ours, "there"), body_of(ours, "gone"), body_of(theirs, "there"), body_of(f"{ours}-none", "x")]
    size = {attribute: {"DataType": "Number", "StringValue": str(len(PAYLOAD))}}
    broken = '["software.amazon.payloadoffloading.PayloadS3Pointer"]'
    await shop.send_bodies([*pointers, broken], size)
    worker = await shop.start()
    await shop.until(shop.is_drained)
    assert shop.handled == {1: 1}
    letters = await shop.dead_letters.receive(ReceiveRequest(10, 1, 30))
    told = {
        letter.body: json.loads(str(letter.attributes["longshore.dead_letter"].value))["reason"] for letter in letters
    }
    foreign = "its payload lies in the bucket {!r}, which is not in large_payloads.buckets"
    assert told == {
        pointers[1]: f"its payload is not in S3 (s3://{ours}/gone)",
        pointers[2]: foreign.format(theirs),
        pointers[3]: foreign.format(f"{ours}-none"),
        broken: f"it has the attribute {attribute} of a large payload, but its body is no pointer to S3",
    }
    assert await worker.terminate() == 0
    assert "Traceback" not in worker.output
    assert "secret" not in worker.output
