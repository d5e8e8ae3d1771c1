"""`longshore topology export`: what is written where, and the sentences; the page about it runs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from worker.cli.app import app
from worker.errors import ConfigError, UsageError

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "export-infrastructure.md").read_text(encoding="utf-8")
FLEET = """\
service: shop
aws: {region: us-east-1}
topics:
  order-events: {}
queues:
  inventory-update:
    handlers: shop.inventory:router
    tags: {team: größe}
    KEY
    subscribe: [{topic: order-events, filter: {event_type: [order.created]}}]
"""
HERE = ("--account", "123456789012")


@pytest.fixture(autouse=True)
def fleet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "LONGSHORE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "fleet.yaml"
    file.write_text(FLEET.replace("KEY\n", "\n"), encoding="utf-8")
    return file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["topology", "export", *arguments], catch_exceptions=False)


def refused(*arguments: str) -> str:
    with pytest.raises((UsageError, ConfigError)) as told:
        run(*arguments)
    return str(told.value)


ALL: Sequence[Sequence[str]] = (["cloudformation"], ["cloudformation", "--json"], ["terraform"], ["iam", *HERE])


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_the_same_fleet_file_gives_the_same_bytes(command: Sequence[str]) -> None:
    first, second = run(*command), run(*command)
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert first.stdout.endswith("\n")
    assert not first.stdout.endswith("\n\n")


def test_yaml_and_json_say_the_same() -> None:
    shown = run("cloudformation").stdout
    assert yaml.safe_load(shown) == json.loads(run("cloudformation", "--json").stdout)
    assert "&id" not in shown  # CloudFormation knows no aliases
    assert "größe" in shown


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_a_file_is_written_once_and_replaced_when_told(command: Sequence[str]) -> None:
    file = Path("out")
    assert run(*command, "--output", "out").stdout == ""
    written = file.read_text(encoding="utf-8")
    assert written == run(*command).stdout
    file.write_text("somebody's", encoding="utf-8")
    assert refused(*command, "--output", "out") == ("out exists already: name another file, or replace it with --force")
    assert file.read_text(encoding="utf-8") == "somebody's"
    run(*command, "--output", "out", "--force")
    assert file.read_text(encoding="utf-8") == written


def test_what_is_refused_leaves_the_file_as_it_was() -> None:
    Path("out").write_text("before", encoding="utf-8")
    refused("iam", "--role", "nobody", *HERE, "--output", "out", "--force")
    assert Path("out").read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["terraform", "--force"], "--force has no effect without --output: leave it out, or name the file"),
        (
            ["iam", "--role", "boss", *HERE],
            "--role is 'boss', but must be one of consumer, publisher, scaler, redriver, provisioner",
        ),
        (["iam", "--queue", "q", *HERE], "--queue is for one role: name it with --role, such as --role consumer"),
        (
            ["iam", "--key", "orders", *HERE],
            "--key is 'orders', but must be an alias and the key behind it, such as alias/orders=KEY_ID",
        ),
        (
            ["terraform", "--output", "none/out"],
            "none/out cannot be written (No such file or directory): name another file",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments: Sequence[str], sentence: str) -> None:
    assert refused(*arguments) == sentence


@pytest.mark.parametrize("command", ["cloudformation", "terraform"])
def test_a_subscription_that_the_fleets_region_cannot_make_is_refused(fleet_file: Path, command: str) -> None:
    """As `plan` and `apply` do: such a template would fail halfway."""
    theirs = "arn:aws:sns:eu-west-1:999999999999:theirs"
    text = FLEET.replace("KEY\n", "\n").replace("order-events: {}", f"'{theirs}': {{external: true}}")
    fleet_file.write_text(text.replace("topic: order-events", "topic: theirs"), encoding="utf-8")
    assert f"{theirs} lies in the region eu-west-1, but this fleet runs in us-east-1" in refused(command)


def test_a_place_that_is_not_known_is_asked_for(fleet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither option, nor fleet file, nor credentials."""
    fleet_file.write_text(FLEET.replace("KEY\n", "\n").replace("aws: {region: us-east-1}\n", ""), encoding="utf-8")
    assert refused("iam", *HERE) == "the region is not known: say --region, or set aws.region in the fleet file"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    told = refused("iam", "--region", "us-east-1")
    assert re.fullmatch(r"the account is not known, and STS does not tell it \(.*\): say --account", told)
    assert "\n" not in told


def test_the_commands_of_the_page_run() -> None:
    blocks = re.findall(r"^```shell\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line.split() for text in blocks for line in text.splitlines()]
    assert len(commands) == 12
    for program, group, export, *arguments in commands:
        assert (program, group, export) == ("longshore", "topology", "export")
        assert run(*arguments).exit_code == 0


def test_the_sentences_of_the_page_are_those_that_are_said(fleet_file: Path) -> None:
    block = re.search(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    run("cloudformation", "--output", "topology.yaml")
    said = [refused("cloudformation", "--output", "topology.yaml")]
    fleet_file.write_text(FLEET.replace("KEY", "").replace("aws: {region: us-east-1}\n", ""), encoding="utf-8")
    said.append(refused("iam", *HERE))
    fleet_file.write_text(FLEET.replace("KEY", "kms_key: alias/orders"), encoding="utf-8")
    said.append(refused("iam", *HERE))
    assert block[1].splitlines() == [f"longshore: {sentence}" for sentence in said]


def test_every_role_of_the_page_is_one() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert list(json.loads(run("iam", *HERE).stdout)) == rows
