"""Rules of `worker.aws.session` that need no server."""

from pathlib import Path

import pytest

from worker.aws.session import AwsAccess, AwsClients, Credentials
from worker.errors import UsageError

FIXED = Credentials("key", "secret")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def refused(access: AwsAccess) -> str:
    with pytest.raises(UsageError) as raised:
        async with AwsClients(access):
            pass
    return str(raised.value)


async def test_no_region_says_where_it_was_looked_for_and_what_to_set() -> None:
    """A user's mistake gets one sentence that says what to do (X1)."""
    sentence = await refused(AwsAccess(credentials=FIXED))
    assert "no AWS region was found" in sentence
    assert "AWS_DEFAULT_REGION" in sentence
    assert "aws.region" in sentence


async def test_no_credentials_says_where_they_were_looked_for_and_what_to_set() -> None:
    sentence = await refused(AwsAccess(region="us-east-1"))
    assert "no AWS credentials were found" in sentence
    assert "AWS_ACCESS_KEY_ID" in sentence


async def test_an_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "profile 'nobody'" in await refused(AwsAccess(region="us-east-1"))


@pytest.mark.parametrize(("region", "endpoint"), [("us east", None), ("us-east-1", "not a url")])
async def test_an_impossible_region_or_endpoint_is_named(region: str, endpoint: str | None) -> None:
    sentence = await refused(AwsAccess(region=region, endpoint_url=endpoint, credentials=FIXED))
    assert (endpoint or region) in sentence


async def test_credentials_that_cannot_be_loaded_are_a_users_mistake(tmp_path: Path) -> None:
    """A role whose source is missing is said, not traced back (X1)."""
    (tmp_path / "config").write_text("[default]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = gone\n")
    assert "credentials cannot be loaded" in await refused(AwsAccess(region="us-east-1"))


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(AwsAccess(credentials=Credentials("key", "secret")))
