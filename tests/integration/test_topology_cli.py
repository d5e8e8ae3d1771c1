"""`longshore topology`: what is printed, and the exit status; the page about it runs."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from worker.aws.session import AwsClients
from worker.cli.app import app
from worker.errors import ConfigError
from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "describe-your-topology.md"
FLEET = """\
service: shop
aws: {{region: us-east-1}}
topics:
  {topic}: {{}}
queues:
  {queue}:
    handlers: shop.orders:router
    visibility_timeout_seconds: {timeout}
    alarms: [{topic}]
    subscribe:
      - {{topic: {topic}, filter: {{event_type: [{rule}]}}}}
"""

Write = Callable[..., None]


@pytest.fixture
def write(
    embedded_aws: EmbeddedAws, unique_name: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Write:
    """Return a function that writes a fleet file into the working directory, for the embedded AWS."""
    monkeypatch.chdir(tmp_path)
    for name, value in embedded_aws.environment.items():
        monkeypatch.setenv(name, value)
    topic, queue = unique_name("events"), unique_name("orders")

    def write_fleet(*, timeout: int = 30, rule: str = "order.created") -> None:
        text = FLEET.format(topic=topic, queue=queue, timeout=timeout, rule=rule)
        Path("fleet.yaml").write_text(text, encoding="utf-8")

    return write_fleet


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["topology", *arguments], catch_exceptions=False)


def test_a_plan_is_shown_applied_and_then_empty(write: Write) -> None:
    write()
    planned = run("plan")
    assert planned.exit_code == 0
    lines = planned.stdout.splitlines()
    assert [line[0] for line in lines if line[0] != " "] == ["+"] * 7 + ["7"]
    assert "    VisibilityTimeout: 30" in lines
    assert lines[-1] == "7 to create"
    applied = run("apply")
    assert (applied.exit_code, applied.stdout.splitlines()[-1]) == (0, "7 changes")
    assert applied.stdout.count("\ncreate ") + applied.stdout.startswith("create ") == 7
    assert run("plan").stdout == "nothing to do\n"
    assert run("plan", "--check").exit_code == 0
    assert run("apply").stdout == "nothing to do\n"


def test_a_difference_is_shown_old_and_new_and_noticed_by_check(write: Write) -> None:
    write()
    run("apply")
    write(timeout=60)
    planned = run("plan", "--check")
    assert planned.exit_code == 1
    assert planned.stdout.splitlines()[1:] == ["    VisibilityTimeout: 30 -> 60", "1 to change"]
    (change,) = json.loads(run("plan", "--json").stdout)["changes"]
    assert (change["action"], change["kind"]) == ("change", "queue")
    assert change["attributes"] == {"VisibilityTimeout": {"old": "30", "new": "60"}}
    assert json.loads(run("apply", "--json").stdout) == {"changes": [change]}
    assert json.loads(run("plan", "--json").stdout) == {"empty": True, "changes": []}


def test_what_others_wrote_is_shown_and_does_not_count(write: Write, embedded_aws: EmbeddedAws) -> None:
    write()
    name = json.loads(run("apply", "--json").stdout)["changes"][2]["name"]

    async def delay() -> None:
        async with AwsClients(embedded_aws.access) as clients:
            url = (await clients.settle.call("get_queue_url", QueueName=name))["QueueUrl"]
            await clients.settle.call("set_queue_attributes", QueueUrl=url, Attributes={"DelaySeconds": "9"})

    asyncio.run(delay())
    planned = run("plan", "--check")
    assert planned.exit_code == 0
    assert planned.stdout.splitlines() == [
        f"? queue {name}",
        "    DelaySeconds: 9",
        "nothing to do, 1 of others to stay",
    ]


def test_a_filter_that_sns_would_refuse_is_refused_before_it_is_asked(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence (X1)."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody there
    write(rule="{starts-with: order.}")
    for command in ("plan", "apply"):
        with pytest.raises(ConfigError, match=r"subscribe\.0\.filter: event_type\.0 has the operator starts-with, but"):
            run(command)


def test_the_commands_of_the_page_run(write: Write) -> None:
    write()
    blocks = re.findall(r"^```shell\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands = [line.split() for text in blocks for line in text.splitlines()]
    assert len(commands) == 5
    for program, group, *arguments in commands:
        assert (program, group) == ("longshore", "topology")
        assert run(*arguments).exit_code == int("--check" in arguments)
