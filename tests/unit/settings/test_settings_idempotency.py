"""Where marks are kept: URLs that are stores, and passwords that nobody sees (I1, X1)."""

from collections.abc import Callable

import pytest

from worker.settings import FleetSettings, effective

FLEET = "queues: {orders: {handlers: 'shop:router'}}\n"
VARIABLE = "LONGSHORE_IDEMPOTENCY__STORE"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///var/idempotency.sqlite",
        "sqlite:////var/lib/idempotency.sqlite",
        "postgresql://user:p%40ss@host/database",
        "postgresql://one:5432,two:5433,[::1]:5434/database?sslmode=require",
        "postgresql://%2Fvar%2Frun/database",
        "postgresql:///database?host=/var/run",
        "redis://:p%40ss@host:6379/0",
        "rediss://host",
        "redis://host?db=3",
        "dynamodb://order-marks",
    ],
)
def test_a_url_of_each_kind_is_a_store(loaded: Callable[..., FleetSettings], url: str) -> None:
    settings = loaded(FLEET, {VARIABLE: url})
    assert settings.idempotency.store == url
    assert settings.idempotency.retention_seconds == 14 * 24 * 3600


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://user:secret@host/database", "is 'mysql://***@host/database', but must be a URL such as sqlite:///"),
        ("idempotency.sqlite", "must be a URL such as sqlite:///var/idempotency.sqlite"),
        ("sqlite://var/marks.sqlite", "must be sqlite:/// and the path of a file"),
        ("sqlite:///", "must be a URL such as sqlite:///"),
        ("redis://", "must be a URL such as"),
        ("postgresql://u:secret@h:abc/x", "is a URL that cannot be read, and is not quoted"),
        ("postgresql://u:secret@one:1,two:x/y", "its port must be a number from 1 to 65535"),
        ("redis://:secret", "not quoted as it may hold a password; its port must be a number"),
        ("postgresql://h:99999/x", "its port must be a number from 1 to 65535"),
        ("postgresql://[h/x", "must be a URL such as"),
        ("postgresql://u:12/secret@h/x", "@, /, :, ? and # in a password must be written %40, %2F, %3A, %3F and %23"),
        ("postgresql://u:sec/ret@h/x", "in a password must be written"),
        ("redis://:secret@h:0/0", "its port must be a number from 1 to 65535"),
        ("redis://:secret@h/notnum", "is 'redis://***@h/notnum', but a Redis numbers its databases: write a number"),
        ("redis://:secret@h?db=secret", "is 'redis://***@h', but a Redis numbers its databases"),
        ("dynamodb://a b", "must be dynamodb:// and the name of a table"),
    ],
)
def test_what_is_no_store_is_refused(refused: Callable[..., str], url: str, told: str) -> None:
    sentence = refused(FLEET, {VARIABLE: url})
    assert told in sentence
    assert "secret" not in sentence


def test_a_password_is_not_shown(loaded: Callable[..., FleetSettings]) -> None:
    """Not by `longshore config show`, wherever in the URL it stands."""
    urls = {
        "postgresql://user:se@cret@host/database": "postgresql://***@host/database",
        "redis://host/0?password=secret": "redis://host/0",
    }
    for url, shown in urls.items():
        assert effective(loaded(FLEET, {VARIABLE: url}))["idempotency"]["store"] == shown
