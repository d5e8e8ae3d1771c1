"""The form of a request to SNS is written by a faster hand than botocore's, and says the same."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.aws.session import AwsAccess, Credentials
from worker.aws.sns import SnsClients, _encode_once

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(TEXT.filter(bool), TEXT))
def test_every_text_is_read_back_as_it_was(form: dict[str, str]) -> None:
    params: dict[str, Any] = {"body": form}
    _encode_once(params=params)
    assert parse_qsl(params["body"].decode("ascii"), keep_blank_values=True) == list(form.items())


def test_what_is_written_already_stays() -> None:
    params: dict[str, Any] = {"body": b"Action=Publish"}
    _encode_once(params=params)
    assert params["body"] == b"Action=Publish"


async def test_the_region_is_taken_from_where_containers_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`AWS_REGION` wins over `AWS_DEFAULT_REGION`, as in the fleet's settings."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    async with SnsClients(AwsAccess(credentials=Credentials("a", "b"))) as clients:
        assert clients.region == "eu-west-1"
    async with SnsClients(AwsAccess(region="eu-north-1", credentials=Credentials("a", "b"))) as clients:
        assert clients.region == "eu-north-1"
