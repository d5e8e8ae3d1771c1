"""`FleetSettings`: the whole of `config/fleet.yaml`."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from worker.settings import checks
from worker.settings.address import Address
from worker.settings.base import Settings, found, note, refusal
from worker.settings.idempotency import IdempotencySettings
from worker.settings.limit import LimitSettings
from worker.settings.outbox import OutboxSettings
from worker.settings.queue import QueueDefaults, QueueSettings
from worker.settings.topic import TopicSettings

__all__ = ["AwsSettings", "FleetSettings", "LogSettings", "ServerSettings"]


def _a_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host = rest.partition("/")[0]
    if scheme not in {"http", "https"} or not host or "@" in host or any(c.isspace() for c in rest):
        raise refusal(f"is {found(text)}, but must be a URL such as http://127.0.0.1:4566, without user and password")
    return text


class AwsSettings(Settings):
    """Where AWS is. Credentials are never written here: the AWS SDK finds them."""

    region: str | None = Field(
        default=None,
        pattern=r"^[a-z]{2}(-[a-z]+)+-\d$",
        json_schema_extra=note(allowed="an AWS region, such as us-east-1"),
        examples=["us-east-1"],
    )
    """The AWS region; unset, `AWS_REGION`, `AWS_DEFAULT_REGION`, then the AWS profile tell it."""
    endpoint_url: str | None = Field(default=None, examples=["http://127.0.0.1:4566"])
    """Address of an emulator or private endpoint, for every service; unset, `AWS_ENDPOINT_URL`, then AWS itself."""
    service_endpoint_urls: SkipJsonSchema[dict[str, Annotated[str, AfterValidator(_a_url)]]] = Field(
        default_factory=dict, exclude=True
    )
    """From `AWS_ENDPOINT_URL_SQS` and its like alone: a service's own endpoint where `endpoint_url` is not in the file."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_a_url(cls, text: str | None) -> str | None:
        return None if text is None else _a_url(text)

    def endpoint_for(self, service: str) -> str | None:
        """Return the endpoint URL of a service (`sqs`, `sns`, ...); `None` means AWS's own."""
        return self.service_endpoint_urls.get(service, self.endpoint_url)


class ServerSettings(Settings):
    """Where probes, metrics, API and dashboard listen."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        json_schema_extra=note(allowed="an address or a host name of this machine, such as 127.0.0.1 or 0.0.0.0"),
    )
    """Address to listen on; a pod needs `0.0.0.0`, so that its probes reach it."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port; 0 takes a free one."""


class LogSettings(Settings):
    """What is logged, and how."""

    format: Literal["json", "console", "auto"] = "auto"
    """`json`: one object per line; `console`: for eyes; `auto`: `console` on a terminal, else `json`."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""


class FleetSettings(Settings):
    """Every setting of one fleet: the file, with the environment over it and defaults under it."""

    service: str = Field(
        default="longshore",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        json_schema_extra=note(allowed="1 to 64 letters, digits, - and _"),
    )
    """Name of the service that this fleet belongs to: it stands in logs, traces and the names of alarms."""
    aws: AwsSettings = AwsSettings()
    """Where AWS is."""
    drain_seconds: int = Field(default=25, ge=5, le=3600)
    """Seconds that running work has after SIGTERM; at least 5 more than the longest `wait_time_seconds`, 5 less than the grace period."""
    max_running_handlers: int | None = Field(default=None, ge=1, le=100_000)
    """Handlers of all queues that may run at once in this process; unset, only each queue's `concurrency` bounds them."""
    server: ServerSettings = ServerSettings()
    """Where probes, metrics, API and dashboard listen."""
    log: LogSettings = LogSettings()
    """What is logged, and how."""
    state_dir: str | None = Field(default=None, min_length=1, examples=["/var/lib/longshore"])
    """Folder for crash journals, by which a process that starts knows what the last one died of; unset, one in the system's temporary folder."""
    idempotency: IdempotencySettings = IdempotencySettings()
    """Where it is marked what is in progress and what is done, for handlers with an `idempotency_key`."""
    outbox: OutboxSettings = OutboxSettings()
    """Events that handlers stored in a transaction of theirs, to be sent by `longshore run`."""
    defaults: QueueDefaults = QueueDefaults()
    """What holds for every queue that does not say otherwise."""
    limits: Mapping[str, LimitSettings] = {}
    """What downstreams take, by a name of your own; queues and handlers say which of them they keep to."""
    topics: Mapping[str, TopicSettings] = {}
    """The SNS topics of the fleet, by name or ARN; those of others are `external: true`."""
    queues: Mapping[str, QueueSettings] = Field(
        min_length=1, json_schema_extra=note(allowed="a mapping of at least one queue, each with its handlers")
    )
    """The SQS queues that this fleet consumes, by name, ARN or URL."""

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what works, but costs something that may not have been meant."""
        return tuple(checks.warnings(self))

    @model_validator(mode="before")
    @classmethod
    def _queues_have_names_and_defaults(cls, raw: Any) -> Any:
        """Put `defaults` under every queue, and the keys of queues and topics into them as their names."""
        if not isinstance(raw, Mapping):
            return raw
        defaults = raw.get("defaults", {})
        if isinstance(defaults, QueueDefaults):
            defaults = defaults.model_dump(exclude_unset=True)
        return {
            **raw,
            **_named(raw, "queues", Address.of_queue, defaults if isinstance(defaults, Mapping) else {}),
            **_named(raw, "topics", Address.of_topic, {}),
        }

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        checks.refuse(self)
        return self


def _named(raw: Mapping[Any, Any], section: str, parse: Any, defaults: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the section with bare names as keys; refuse two keys that name the same thing."""
    members = raw.get(section)
    if not isinstance(members, Mapping):
        return {}
    named: dict[Any, Any] = {}
    spelled: dict[str, str] = {}
    for key, member in members.items():
        name = _bare(key, section, parse)
        if name in named:
            raise refusal(
                f"is {name} as {spelled[name]} is, but must be named once", (section, key), (section, spelled[name])
            )
        named[name] = {**_under(defaults, member), "name": key} if isinstance(member, Mapping) else member
        spelled[name] = key
    return {section: named}


def _bare(key: Any, section: str, parse: Any) -> Any:
    if not isinstance(key, str):
        raise refusal(f"has the key {found(key)}, but every key must be a name: put it in quotes", section)
    try:
        return parse(key).name
    except ValueError as error:
        raise refusal(f"is a key that must be {error}", (section, key)) from None


def _under(defaults: Mapping[Any, Any], member: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the queue with the defaults under it; `retry`, `breaker`, `large_payloads` and `tags` are merged key by key."""
    merged = {**defaults, **member}
    for key in ("retry", "breaker", "large_payloads", "tags"):
        lower, upper = defaults.get(key), member.get(key)
        if isinstance(lower, Mapping) and isinstance(upper, Mapping):
            merged[key] = {**lower, **upper}
    return merged
