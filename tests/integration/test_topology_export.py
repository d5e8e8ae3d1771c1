"""`longshore topology export`: what other tools make of it is what `apply` makes."""

import asyncio
import json
import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from support.command import longshore

from worker.aws.session import AwsClients
from worker.aws.sns import Publication, publish_batch, topic_arn
from worker.aws.sqs import SqsSource
from worker.local import EmbeddedAws
from worker.message import Attribute
from worker.source import ReceiveRequest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
FLEET = """\
service: shop
aws: {{region: us-east-1}}
idempotency: {{store: "dynamodb://{events}-marks"}}
topics:
  {events}: {{tags: {{team: "shop ${{x}} \\"y\\""}}, large_payloads: {{bucket: {events}-payloads}}}}
  {refunds}: {{external: true}}
  {payments}: {{external: true}}
defaults:
  visibility_timeout_seconds: 45
queues:
  {orders}:
    handlers: shop.orders:router
    retention_seconds: 86400
    tags: {{team: shop, tier: "1"}}
    alarms: [{events}, {pages}]
    subscribe:
      - {{topic: {events}, raw: true}}
      - topic: {payments}
        filter_scope: MessageBody
        filter: {{payment: {{state: [settled], amount: [{{numeric: [">", 0]}}]}}}}
        dead_letter: {undelivered}
  {mail}:
    handlers: shop.orders:router
    dead_letter: none
    kms_key: alias/mail
    subscribe:
      - {{topic: {events}, filter: {{event_type: [order.created, {{prefix: order.cancel}}], test: [{{exists: false}}]}}}}
  {audit}:
    handlers: shop.orders:router
    dead_letter: {{queue: {orders}-dlq}}
    subscribe: [{{topic: {events}}}, {{topic: {refunds}}}]
"""
STEMS = ("events", "refunds", "payments", "pages", "undelivered", "orders", "mail", "audit")
Names = Mapping[str, str]


@pytest.fixture
def names(embedded_aws: EmbeddedAws, unique_name: Callable[[str], str], tmp_path: Path) -> Names:
    """Write `fleet.yaml`, make what it refers to and does not own, and return the names of its resources."""
    names = {stem: unique_name(stem) for stem in STEMS}
    sns = client(embedded_aws, "sns")
    for stem in ("refunds", "payments", "pages"):
        sns.create_topic(Name=names[stem])
    (tmp_path / "fleet.yaml").write_text(FLEET.format_map(names), encoding="utf-8")
    return names


@pytest.fixture
def more_names(embedded_aws: EmbeddedAws, names: Names, unique_name: Callable[[str], str], tmp_path: Path) -> Names:
    """Add to the fleet file what CloudFormation of the embedded AWS does not know.

    That is FIFO and encrypted topics, and those of another account.
    """
    more = {"ledger": unique_name("ledger.fifo"), "books": unique_name("books.fifo"), "secrets": unique_name("secrets")}
    theirs = topic_of_somebody_else(embedded_aws, unique_name("theirs"))
    fleet = yaml.safe_load((tmp_path / "fleet.yaml").read_text(encoding="utf-8"))
    fleet["topics"] |= {
        more["ledger"]: {},
        more["secrets"]: {"kms_key": "alias/secrets"},
        theirs: {"external": True},
    }
    fleet["queues"][names["audit"]]["subscribe"].append({"topic": theirs})
    fleet["queues"][more["books"]] = {
        "handlers": "shop.orders:router",
        "subscribe": [{"topic": more["ledger"], "raw": True}],
    }
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet), encoding="utf-8")
    return {**names, **more}


def topic_of_somebody_else(aws: EmbeddedAws, name: str) -> str:
    """Make a topic in another account that the fleet's may subscribe to and look at; return its ARN."""
    theirs = client(aws, "sns", account="222222222222")
    arn = str(theirs.create_topic(Name=name)["TopicArn"])
    ours = client(aws, "sts").get_caller_identity()["Account"]
    actions = ["Subscribe", "ListSubscriptionsByTopic"]
    theirs.add_permission(TopicArn=arn, Label="fleet", AWSAccountId=[ours], ActionName=actions)
    return arn


def client(aws: EmbeddedAws, service: str, *, account: str | None = None) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=account or aws.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws.environment["AWS_SECRET_ACCESS_KEY"],
    )


def printed(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    ended = longshore("topology", *arguments, folder=folder, environment=environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def make_stack(aws: EmbeddedAws, name: str, template: str) -> None:
    cloudformation = client(aws, "cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=template)
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def planned(aws: EmbeddedAws, folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(printed(folder, "plan", "--json", environment=aws.environment))
    return plan


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["yaml", "json"])
def test_the_template_makes_what_apply_makes(
    embedded_aws: EmbeddedAws, names: Names, tmp_path: Path, options: list[str]
) -> None:
    """Nothing is left to do, and nothing is there that the fleet file does not know; nobody has told the account."""
    make_stack(embedded_aws, names["events"], printed(tmp_path, "export", "cloudformation", *options))
    plan = planned(embedded_aws, tmp_path)
    assert plan["empty"]
    # CloudFormation of the embedded AWS gives a topic a name to display; AWS's does not.
    assert all(change["attributes"].keys() == {"DisplayName"} for change in plan["changes"])
    assert asyncio.run(what_arrives(embedded_aws, names)) == ARRIVES


def test_one_policy_lets_in_what_a_policy_for_each_queue_does(
    embedded_aws: EmbeddedAws, names: Names, tmp_path: Path
) -> None:
    """Queues that the same topics write to share one; all else is as `apply` makes it."""
    template = printed(tmp_path, "export", "cloudformation", "--json", "--one-policy")
    kinds = [resource["Type"] for resource in json.loads(template)["Resources"].values()]
    assert kinds.count("AWS::SQS::Queue") > kinds.count("AWS::SQS::QueuePolicy")
    make_stack(embedded_aws, names["events"], template)
    changes = [each for each in planned(embedded_aws, tmp_path)["changes"] if each["action"] == "change"]
    assert all(name.startswith("Policy.Longshore") for change in changes for name in change["attributes"])
    assert asyncio.run(what_arrives(embedded_aws, names)) == ARRIVES


ARRIVES = {"orders": 2, "mail": 1, "audit": 2}
"""Of an order that was created and one that was updated."""


async def what_arrives(aws: EmbeddedAws, names: Names) -> dict[str, int]:
    """Publish these two events; return how many messages each queue has."""
    words = ("order.created", "order.updated")
    events = [Publication("{}", {"event_type": Attribute("String", word)}) for word in words]
    async with AwsClients(aws.access) as clients:
        assert await publish_batch(clients, await topic_arn(clients, names["events"]), events) == [None, None]
        sources = {stem: SqsSource(clients, names[stem]) for stem in ARRIVES}
        return {stem: len(await source.receive(ReceiveRequest(10, 0, 30))) for stem, source in sources.items()}


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest) -> Path:
    """Return the commands of a venv with cfn-lint and python-hcl2, made on first use and kept in pytest's cache."""
    folder: Path = request.config.cache.mkdir("export-tools")
    lock = ROOT / "requirements-export.lock"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        venv.create(folder, clear=True, with_pip=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(lock),
        ]
        ended = subprocess.run(pip, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"cfn-lint and python-hcl2 cannot be installed: {ended.stderr}"
        stamp.write_text(lock.read_text())
    return folder / "bin"


@pytest.mark.export
@pytest.mark.parametrize("options", [[], ["--json"], ["--one-policy"]], ids=" ".join)
@pytest.mark.usefixtures("more_names")
def test_cfn_lint_finds_nothing(tools: Path, tmp_path: Path, options: list[str]) -> None:
    printed(tmp_path, "export", "cloudformation", *options, "--output", "template")
    ended = subprocess.run(
        [tools / "cfn-lint", "--include-checks", "I", "--", "template"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.export
def test_another_parser_of_hcl_reads_the_file(more_names: Names, tools: Path, tmp_path: Path) -> None:
    printed(tmp_path, "export", "terraform", "--output", "main.tf")
    script = "import hcl2, json, sys; json.dump(hcl2.load(sys.stdin), sys.stdout)"
    text = (tmp_path / "main.tf").read_text(encoding="utf-8")
    ended = subprocess.run(
        [tools / "python", "-c", script], input=text, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    resources = [kind.strip('"') for each in json.loads(ended.stdout)["resource"] for kind in each]
    assert resources.count("aws_sqs_queue") == 7
    assert resources.count("aws_sns_topic") == 3
    assert resources.count("aws_sns_topic_subscription") == 7
    assert more_names["books"] in ended.stdout


PROVIDER = """\
provider "aws" {
  skip_metadata_api_check     = true
  skip_credentials_validation = true
}
"""
NO_TERRAFORM = (
    "there is no terraform in the PATH, so what is exported was not validated: install it, or leave the mark out"
)
NO_PROVIDER = (
    "terraform init did not get the provider hashicorp/aws, so what is exported was not validated: "
    "let it reach a registry, or name a mirror in the file that TF_CLI_CONFIG_FILE names"
)
Terraform = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def terraform(embedded_aws: EmbeddedAws, more_names: Names, tmp_path: Path) -> Terraform:
    """Return a function that runs Terraform on what is exported, with the provider at hand; fail without either."""
    assert more_names
    program = shutil.which("terraform")
    if program is None:
        pytest.fail(NO_TERRAFORM)
    folder = tmp_path / "terraform"
    folder.mkdir()
    printed(tmp_path, "export", "terraform", "--output", "terraform/main.tf")
    (folder / "provider.tf").write_text(PROVIDER, encoding="utf-8")
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**others, **embedded_aws.environment, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

    def run(command: str, *options: str) -> "subprocess.CompletedProcess[str]":
        whole = [program, command, "-no-color", *options]
        return subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    begun = run("init")
    if begun.returncode != 0:
        pytest.fail(f"{NO_PROVIDER}\n{begun.stdout}{begun.stderr}")
    return run


@pytest.mark.terraform
def test_terraform_makes_what_apply_makes(
    terraform: Terraform, embedded_aws: EmbeddedAws, more_names: Names, tmp_path: Path
) -> None:
    """It validates, is formatted and is applied; then `plan` finds nothing to do."""
    for command in (["validate"], ["fmt", "-check", "-diff"], ["apply", "-auto-approve"]):
        ended = terraform(*command)
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    assert planned(embedded_aws, tmp_path) == {"empty": True, "changes": []}
    assert asyncio.run(what_arrives(embedded_aws, more_names)) == ARRIVES
    steps = [json.loads(line) for line in terraform("plan", "-json").stdout.splitlines()]
    kinds = {step["change"]["resource"]["resource_type"] for step in steps if step["type"] == "planned_change"}
    # In the protocol that the provider speaks the embedded AWS does not tell all of an alarm.
    assert kinds <= {"aws_cloudwatch_metric_alarm"}
