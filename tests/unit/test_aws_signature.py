"""Our signatures are botocore's."""

from datetime import UTC, datetime

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from worker.aws.signature import Signer

MOMENT = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)
HEADERS = {
    "X-Amz-Target": "AmazonSQS.ReceiveMessage",
    "Content-Type": "application/x-amz-json-1.0",
    "User-Agent": "longshore/0.1.0",
    "X-Amzn-Query-Mode": "true",
}


def botocores(url: str, headers: dict[str, str], body: bytes, keys: Credentials, region: str) -> dict[str, str]:
    request = AWSRequest("POST", url, headers=headers, data=body)
    auth.SigV4Auth(keys, "sqs", region).add_auth(request)
    return dict(request.headers.items())


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.eu-west-1.amazonaws.com",
        "https://sqs.eu-west-1.amazonaws.com/",
        "https://sqs.eu-west-1.amazonaws.com:443/",
        "https://VPCE-1.sqs.eu-west-1.vpce.amazonaws.com",
        "http://127.0.0.1:4566",
        "http://localhost:80/",
        "http://[::1]:4566/",
        "http://[::1]/",
    ],
)
@pytest.mark.parametrize("token", [None, "a/token+of=many characters"])
@pytest.mark.parametrize("body", [b"{}", '{"MessageBody":"gr\u00fc\u00dfe"}'.encode(), b""])
def test_a_signature_is_botocores(monkeypatch: pytest.MonkeyPatch, url: str, token: str | None, body: bytes) -> None:
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_: MOMENT)
    keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    headers = {**HEADERS, "X-Odd": "  two   spaces "}
    ours = Signer(url, service="sqs", region="eu-west-1").sign(headers, body, keys, at=MOMENT.timestamp())
    assert ours == botocores(url, headers, body, keys, "eu-west-1")


def test_the_key_follows_day_and_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """One signer lives through midnight, and through credentials that are renewed."""
    signer = Signer("http://127.0.0.1:4566", service="sqs", region="us-east-1")
    for day in (1, 1, 2):
        for secret in ("first", "second"):
            moment = datetime(2026, 3, day, tzinfo=UTC)
            monkeypatch.setattr(auth, "get_current_datetime", lambda *_, moment=moment: moment)
            keys = Credentials("AKID", secret)
            ours = signer.sign(HEADERS, b"{}", keys, at=moment.timestamp())
            assert ours == botocores("http://127.0.0.1:4566", HEADERS, b"{}", keys, "us-east-1")


def test_what_is_given_is_left_as_it_is() -> None:
    headers = dict(HEADERS)
    Signer("http://127.0.0.1:4566", service="sqs", region="us-east-1").sign(headers, b"{}", Credentials("a", "b"))
    assert headers == HEADERS
