"""Limits in the fleet file: what cannot be counted is refused, by name (X1)."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from worker import ConfigError, Message, Router
from worker.fleet.fit import limits_of, refuse_unknown_limits, unused_limits
from worker.settings import FleetSettings, LimitSettings, effective, load

STORE = "redis://localhost:6379/0"


def fleet(queue: dict[str, Any] | None = None, **limits: Any) -> FleetSettings:
    queues = {"orders": {"handlers": "shop:router", **(queue or {})}}
    return FleetSettings.model_validate({"queues": queues, "limits": limits})


def router(limit: str | None = None) -> Router:
    made = Router()

    @made.on("*", limit=limit)
    async def handle(_: Message[Any]) -> None: ...

    return made


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({}, "concurrency is missing, but a limit needs concurrency, per_second or both"),
        ({"concurrency": 3, "scope": "fleet"}, "scope is fleet, but counting over all processes needs a store"),
        ({"concurrency": 3, "store": STORE}, "store is given, but scope is process"),
        ({"concurrency": 3, "scope": "fleet", "store": "http://me:secret@host"}, "must be a URL of Redis"),
        (
            {"concurrency": 3, "scope": "fleet", "store": "redis://:secret@x:abc/0"},
            "is a URL that cannot be read",
        ),
        (
            {"concurrency": 3, "scope": "fleet", "store": "redis://:secret@x/limits"},
            "but a Redis numbers its databases",
        ),
    ],
    ids=["nothing", "no store", "no use for a store", "no Redis", "no port", "no number"],
)
def test_what_cannot_be_counted_is_refused(limit: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        LimitSettings.model_validate(limit)
    assert told in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_queues_limit_must_be_declared() -> None:
    with pytest.raises(ValidationError, match="must be declared in limits; did you mean crm-api"):
        fleet({"limit": "crm-ap"}, **{"crm-api": {"concurrency": 1}})
    with pytest.raises(ValidationError, match=r"add it to limits \(there: none\)"):
        fleet({"limit": "crm-api"})


def test_a_handlers_limit_must_be_declared() -> None:
    settings = fleet(**{"crm-api": {"concurrency": 1}})
    refuse_unknown_limits(settings, {"orders": router("crm-api")})
    with pytest.raises(
        ConfigError, match=r"has limit='crm_api', which is not declared in limits; did you mean 'crm-api'\?"
    ):
        refuse_unknown_limits(settings, {"orders": router("crm_api")})


@pytest.mark.parametrize("wrong", ["", 3])
def test_a_handlers_limit_is_a_name(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="allowed is the name of a limit in the fleet file"):
        router(wrong)


def test_a_limit_that_nothing_keeps_to_is_warned_of() -> None:
    """Only when all handlers are known: a process that runs some of the queues cannot tell."""
    settings = fleet(mail={"per_second": 5}, crm={"concurrency": 1})
    (warning,) = unused_limits(settings, {"orders": router("crm")})
    assert warning.startswith("limits.mail is declared, but no queue and no handler keeps to it")
    assert list(unused_limits(settings, {})) == []
    assert limits_of(settings, {"orders": router("crm")}) == {"crm"}


def test_a_stores_password_comes_from_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    """The file names the limit, the environment says where its store is."""
    file = tmp_path / "fleet.yaml"
    file.write_text(
        "limits: {crm-api: {concurrency: 1, scope: fleet}}\n"
        "queues: {orders: {handlers: 'shop:router', limit: crm-api}}\n"
    )
    settings = load(file, environ={"LONGSHORE_LIMITS__CRM_API__STORE": "redis://:secret@redis:6379/0"})
    assert settings.limits["crm-api"].store == "redis://:secret@redis:6379/0"
    assert "secret" not in str(effective(settings))
