"""The lane answers as botocore does, over the same connections: what is sent, what is parsed, and what is raised (S2, X3)."""

import base64
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any, cast

import pytest
from aiobotocore.session import AioSession, get_session
from aiohttp import web
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from worker.aws.lane import Lane
from worker.aws.session import AwsAccess, AwsClients, Credentials

pytestmark = pytest.mark.integration

RECEIVED = {
    "Messages": [
        {
            "MessageId": "1",
            "ReceiptHandle": "r",
            "MD5OfBody": "0",
            "Body": "gr\u00fc\u00dfe \U0001f600",
            "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1"},
            "MessageAttributes": {
                "text": {"StringValue": "a", "DataType": "String"},
                "raw": {"BinaryValue": base64.b64encode(b"\0\xff").decode(), "DataType": "Binary"},
            },
        },
        {"MessageId": "2", "ReceiptHandle": "s", "Body": "", "MessageAttributes": None, "Attributes": None},
    ]
}
PARTLY = {"Successful": [{"Id": "0"}], "Failed": [{"Id": "1", "Code": "c", "Message": "m", "SenderFault": True}]}
REFUSED = {"__type": "com.amazonaws.sqs#ReceiptHandleIsInvalid", "message": "no"}
QUERY = {"x-amzn-query-error": "ReceiptHandleIsInvalid;Sender"}
ANSWERS = {
    "messages": (200, RECEIVED, {}),
    "no messages": (200, {}, {}),
    "null": (200, {"Messages": None}, {}),
    "empty": (200, b"", {}),
    "partly": (200, PARTLY, {}),
    "refused": (400, REFUSED, {}),
    "refused as in the old protocol": (400, REFUSED, QUERY),
    "no rights": (403, {"__type": "AccessDeniedException", "Message": "who are you"}, {}),
    "no JSON": (500, b"<html>oh</html>", {}),
    "nothing said": (503, b"", {}),
    "moved": (301, b"", {"Location": "http://127.0.0.1:9/"}),
}
FITS = {"messages": "receive_message", "null": "receive_message", "partly": "delete_message_batch"}
"""What only one operation is answered with."""
CALLS: dict[str, dict[str, Any]] = {
    "receive_message": {"QueueUrl": "http://q/1/q", "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]},
    "delete_message_batch": {"QueueUrl": "http://q/1/q", "Entries": [{"Id": "0", "ReceiptHandle": "r"}]},
    "send_message": {
        "QueueUrl": "http://q/1/q",
        "MessageBody": "\u00e9",
        "MessageAttributes": {"raw": {"BinaryValue": b"\0\xff", "DataType": "Binary"}},
    },
}


class Stub:
    """Gives one answer to every request, and keeps the last one."""

    def __init__(self) -> None:
        self.answer: tuple[int, object, dict[str, str]] = (200, {}, {})
        self.request: tuple[str, str, dict[str, str], bytes] = ("", "", {}, b"")

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.request = request.method, request.raw_path, dict(request.headers), await request.read()
        status, said, headers = self.answer
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return web.Response(status=status, body=body, headers=headers, content_type="application/x-amz-json-1.0")


@pytest.fixture
async def stub() -> AsyncIterator[tuple[Stub, str]]:
    stub = Stub()
    runner = web.ServerRunner(web.Server(stub, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield stub, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def session() -> AioSession:
    found = get_session()
    found.set_credentials("AKID", "secret", "token")
    return found


async def said(client: Any, operation: str) -> object:
    """Return what a call returned or raised, without what tells one request from another."""
    try:
        answer = await getattr(client, operation)(**CALLS[operation])
    except ClientError as error:
        told = cast("dict[str, Any]", error.response)
        return type(error).__name__, told["Error"], told["ResponseMetadata"]["HTTPStatusCode"]
    except BotoCoreError as error:
        return type(error).__name__, str(error)
    answer.pop("ResponseMetadata", None)
    return answer


@pytest.mark.parametrize(
    ("kind", "operation"),
    [(kind, operation) for kind in ANSWERS for operation in CALLS if FITS.get(kind, operation) == operation],
)
async def test_an_answer_is_read_as_botocore_reads_it(stub: tuple[Stub, str], kind: str, operation: str) -> None:
    server, url = stub
    server.answer = ANSWERS[kind]
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    told, requests = [], []
    for has_lane in (False, True):
        async with session().create_client("sqs", region_name="us-east-1", endpoint_url=url, config=config) as client:
            lane = Lane.take(client) if has_lane else None
            told.append(await said(client, operation))
            assert lane is None or lane.calls == 1
        requests.append(server.request)
    assert told[1] == told[0]
    (method, path, headers, body), (our_method, our_path, our_headers, our_body) = requests
    assert (our_method, our_path, our_body) == (method, path, body)
    varying = {"X-Amz-Date", "Authorization", "amz-sdk-invocation-id", "amz-sdk-request"}
    assert {n: v for n, v in our_headers.items() if n not in varying} == {
        n: v for n, v in headers.items() if n not in varying
    }


class Renewed:
    """Credentials that are others each time they are asked."""

    def __init__(self) -> None:
        self._number = count(1)

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(f"AKID{next(self._number)}", "secret", None, None)


async def test_credentials_are_asked_for_each_call(stub: tuple[Stub, str]) -> None:
    """So that those of a role are renewed as ever."""
    server, url = stub
    async with session().create_client("sqs", region_name="us-east-1", endpoint_url=url) as client:
        Lane.take(client)
        client._request_signer._credentials = Renewed()
        for number in (1, 2):
            await client.receive_message(**CALLS["receive_message"])
            assert f"Credential=AKID{number}/" in server.request[2]["Authorization"]


@pytest.mark.parametrize(
    ("path", "config"), [("/aws", Config()), ("", Config(signature_version=UNSIGNED))], ids=["a path", "unsigned"]
)
async def test_what_it_does_not_know_is_left_to_botocore(stub: tuple[Stub, str], path: str, config: Config) -> None:
    server, url = stub
    server.answer = ANSWERS["messages"]
    async with session().create_client(
        "sqs", region_name="us-east-1", endpoint_url=url + path, config=config
    ) as client:
        lane = Lane.take(client)
        answer = await client.receive_message(**CALLS["receive_message"])
    assert lane is not None
    assert lane.calls == 0
    assert len(answer["Messages"]) == 2


async def test_a_release_that_is_built_otherwise_answers_itself() -> None:
    assert Lane.take(object()) is None


async def test_every_call_to_sqs_takes_it(stub: tuple[Stub, str]) -> None:
    """Botocore's own requests say how often they were sent."""
    server, url = stub
    access = AwsAccess(region="us-east-1", endpoint_url=url, credentials=Credentials("AKID", "secret"))
    async with AwsClients(access) as clients:
        for channel in (clients.receive, clients.settle):
            await channel.call("receive_message", **CALLS["receive_message"])
            assert "amz-sdk-request" not in server.request[2]
            assert server.request[2]["User-Agent"].startswith("longshore/")
