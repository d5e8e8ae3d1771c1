"""The yardstick: what a careful person writes with aiobotocore alone. Four loops that receive ten and delete ten.

`python -m benchmarks.bare QUEUE_URL`. No decoding, no handler, no leases, no metrics, no log: it costs what the client costs.
"""

import asyncio
import sys
from typing import Any

from aiobotocore.session import get_session

from benchmarks.stub import loop_factory

LOOPS = 4


async def consume(client: Any, url: str) -> None:
    """Receive and delete until cancelled, with the parameters that Longshore uses."""
    while True:
        answer = await client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=20,
            VisibilityTimeout=30,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp", "AWSTraceHeader"],
            MessageAttributeNames=["All"],
        )
        if messages := answer.get("Messages", ()):
            await client.delete_message_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(position), "ReceiptHandle": message["ReceiptHandle"]}
                    for position, message in enumerate(messages)
                ],
            )


async def main(url: str) -> None:
    """Run the loops on one client with its default configuration."""
    async with get_session().create_client("sqs") as client, asyncio.TaskGroup() as loops:
        for _ in range(LOOPS):
            loops.create_task(consume(client, url))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(sys.argv[1]))
