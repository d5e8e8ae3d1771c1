"""The command line end to end: what commands print, whatever the terminal, the streams and the signals are like."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families
from support.command import COMMAND, clean_environment, longshore, mistake
from support.shop import Shop

from worker.aws.session import AwsClients
from worker.local import EmbeddedAws

pytestmark = pytest.mark.integration
CONFIG = Path(__file__).parents[2] / "config"

FULL = ["> /dev/full"] if Path("/dev/full").exists() else []
"""Linux has a device that is always full."""

PUBLISH = """
import boto3, json
sns = boto3.client("sns")
topics = [each["TopicArn"] for each in sns.list_topics()["Topics"]]
(topic,) = [arn for arn in topics if arn.endswith(":order-events")]
order = {"order_id": "order-1", "user_id": "user-1", "email": "ann@shop.example", "product": "tea", "quantity": 1, "amount": 9}
sns.publish(TopicArn=topic, Message=json.dumps(order), MessageAttributes={
    "event_type": {"DataType": "String", "StringValue": "order.delivered"}})
"""


@pytest.fixture
async def shop(
    tmp_path: Path, aws_clients: AwsClients, make_queue: Callable[..., Awaitable[str]], embedded_aws: EmbeddedAws
) -> AsyncIterator[Shop]:
    """A shop that wants no dead-letter queue."""
    queue = await make_queue("shop")
    shop = Shop(tmp_path, queue, aws_clients, embedded_aws)
    shop.configure(process="drain_seconds: 8", wait_time_seconds=1, dead_letter="none")
    try:
        yield shop
    finally:
        await shop.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A fresh folder with a copy of `config/`, and a short poll so that draining is short."""
    shutil.copytree(CONFIG, tmp_path / "config")
    path = tmp_path / "config" / "fleet.yaml"
    path.write_text(path.read_text().replace("defaults:\n", "server: {port: 0}\ndefaults:\n  wait_time_seconds: 1\n"))
    return tmp_path


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which `longshore` is the command."""
    script = f'longshore() {{ {sys.executable} -c "from worker.cli import main; main()" "$@"; }}\n{line}'
    return subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=folder,
        env=clean_environment(folder, environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_worker_answers_what_operators_ask(shop: Shop) -> None:
    """Probes, status and metrics of a worker that has handled three messages (M1)."""
    await shop.send(3)
    worker = await shop.start()
    await shop.until(lambda: len(shop.handled) == 3)
    await shop.until(shop.is_drained)
    assert await worker.ask("/livez") == (200, '{"alive":true,"problems":[]}\n')
    assert await worker.ask("/readyz") == (200, '{"ready":true,"problems":[],"warnings":[]}\n')
    status = json.loads((await worker.ask("/api/status"))[1])
    assert (status["service"], status["state"], status["problems"]) == ("shop", "ready", [])
    queue = status["queues"][shop.queue]
    assert (queue["received"], queue["settled"]["ack"], queue["in_hand"]) == (3, 3, 0)
    exposition = (await worker.ask("/metrics"))[1]
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
    assert values["longshore_received_total", shop.queue] == 3
    assert values["longshore_settled_total", "ack", shop.queue] == 3
    assert values["longshore_settled_total", "dead_letter", shop.queue] == 0

    async def has_ticked() -> bool:
        return "longshore_event_loop_lag_seconds_count 0.0" not in (await worker.ask("/metrics"))[1]

    await shop.until(has_ticked)
    assert await worker.terminate() == 0


async def test_the_line_that_run_local_prints_leads_another_terminal_there(fleet: Path) -> None:
    """`longshore run --local` in a fresh folder; what is published with the printed variables is handled."""
    log, notes = fleet / "log", fleet / "notes"
    with log.open("wb") as out, notes.open("wb") as err:
        worker = await asyncio.create_subprocess_exec(
            *COMMAND, "run", "--local", cwd=fleet, env=clean_environment(fleet), stdout=out, stderr=err
        )
    try:
        async with asyncio.timeout(40):
            await Shop.until(lambda: worker.returncode is not None or '"started"' in log.read_text())
            (line,) = re.findall(r"^export .*$", notes.read_text(), re.MULTILINE)
            publish = await asyncio.to_thread(shell, f"{line}\n{sys.executable} -c '{PUBLISH}'", fleet)
            assert publish.returncode == 0, publish.stderr
            address = re.findall(r'"status":"(http[^"]+)"', log.read_text())[0]
            await Shop.until(lambda: settled(address))
    finally:
        worker.terminate()
        assert await worker.wait() == 0
    assert all(json.loads(each)["level"] in {"info", "warning"} for each in log.read_text().splitlines())
    assert (fleet / "orders.sqlite").exists()


async def settled(address: str) -> bool:
    """Whether the analytics have taken the event, and the orders wait for its order, which was never created."""
    async with ClientSession() as session, session.get(f"{address}/api/status") as answer:
        settled = {name: queue["settled"] for name, queue in (await answer.json())["queues"].items()}
    return bool(settled["analytics-tracking"]["ack"] and settled["order-processing"]["retry"])


def test_topology_apply_has_nothing_to_do_the_second_time(
    fleet: Path, embedded_aws: EmbeddedAws, unique_name: Callable[[str], str]
) -> None:
    """It says what it made, one line each, and their number."""
    path = fleet / "config" / "fleet.yaml"
    text = path.read_text()
    written = yaml.safe_load(text)
    for name in (*written["topics"], *written["queues"]):
        bare = name.removesuffix(".fifo")
        text = re.sub(rf"\b{bare}\b", unique_name(bare), text)
    path.write_text(text)
    environment = embedded_aws.environment
    made = longshore("topology", "apply", folder=fleet, environment=environment)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.splitlines()[-1] == "20 changes"
    again = longshore("topology", "apply", "--json", folder=fleet, environment=environment)
    assert (again.returncode, json.loads(again.stdout)) == (0, {"changes": []})


def test_a_short_demo_balances_its_books(tmp_path: Path) -> None:
    """What is piped is plain text that fits 100 columns, and the status is 0."""
    ended = longshore("demo", "--events", "20", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1].startswith("books balance")
    assert "\x1b" not in ended.stdout
    assert (
        max(len(line) for line in ended.stdout.splitlines() if "export AWS_" not in line) <= 100
    )  # it is to be pasted
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["demo"], ["run", "--local"]])
def test_without_ministack_the_extra_is_named(fleet: Path, command: list[str]) -> None:
    """The embedded AWS is an extra; who lacks it gets the commands that install it (X1)."""
    blocked = "import sys; sys.modules['ministack'] = None; from worker.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", blocked, *command],
        cwd=fleet,
        env=clean_environment(fleet),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "by make setup in a checkout" in mistake(ended)


def test_an_output_that_takes_nothing_ends_a_command_in_one_sentence(tmp_path: Path) -> None:
    """A full disk, a reader that has gone, errors that nobody takes: never a traceback, and the status is not 0."""
    full = shell("ulimit -f 0; longshore config schema > schema.json", tmp_path)
    assert (full.returncode, full.stderr) == (1, "longshore: standard output: File too large\n")
    gone = shell("set -o pipefail; longshore config schema | true", tmp_path)
    assert (gone.returncode, gone.stderr) == (1, "")
    silent = shell("longshore config show 2>&-", tmp_path)
    assert silent.returncode == 2
    deaf = shell("ulimit -f 0; longshore config show 2> errors", tmp_path)
    assert deaf.returncode == 2


@pytest.mark.parametrize("streams", [*FULL, "<&- >&- 2>&-", "| head -1"])
async def test_a_worker_outlives_its_output(shop: Shop, streams: str) -> None:
    """Log lines that nobody takes are dropped; messages are handled all the same, and SIGTERM ends it with 0."""
    await shop.send(3)
    line = f"set -o pipefail; exec {COMMAND[0]} -c '{COMMAND[2]}' run {streams}"
    worker = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-c", line if "|" not in streams else line.replace("exec ", "")),
        cwd=shop.folder,
        env=clean_environment(shop.folder, shop.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        await shop.until(lambda: len(shop.handled) == 3, seconds=20)
        await shop.until(shop.is_drained)
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        _, errors = await worker.communicate()
    assert errors == b""
    assert worker.returncode in ({0} if "|" not in streams else {0, -signal.SIGTERM})


async def test_a_worker_needs_neither_a_home_nor_a_writable_folder(shop: Shop) -> None:
    """A container with a read-only root and no HOME is enough."""
    environment = clean_environment(
        shop.folder, {**shop.environment, "PYTHONPATH": str(shop.folder)}, without=("HOME", "TMPDIR")
    )
    handlers = shop.folder / "shop_handlers.py"
    handlers.write_text(handlers.read_text().replace('"ledger.txt"', f'"{shop.folder}/ledger.txt"'))
    await shop.send(1)
    worker = await asyncio.create_subprocess_exec(
        *COMMAND, *("run", "--config", str(shop.folder / "fleet.yaml")), cwd="/proc", env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await shop.until(lambda: len(shop.handled) == 1, seconds=20)
    finally:
        worker.terminate()
        _, errors = await worker.communicate()
    assert (worker.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    ("number", "statuses"),
    [(signal.SIGINT, {130, 0}), (signal.SIGTERM, {0, -signal.SIGTERM})],
    ids=["ctrl-c", "sigterm"],
)
async def test_a_signal_at_any_moment_of_the_start_ends_it_without_a_traceback(
    shop: Shop, number: signal.Signals, statuses: set[int]
) -> None:
    """While modules load, while clients are made, just after: it ends, and standard error stays empty (D1)."""
    begun = COMMAND[2].replace("; ", "; import sys; sys.stderr.write('begun\\n'); sys.stderr.flush(); ")

    async def interrupt(delay_seconds: float) -> tuple[int | None, bytes]:
        worker = await asyncio.create_subprocess_exec(
            *(COMMAND[0], "-c", begun, "run"),
            cwd=shop.folder,
            env=clean_environment(shop.folder, shop.environment),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert worker.stderr is not None
        assert await worker.stderr.readline() == b"begun\n"
        await asyncio.sleep(delay_seconds)
        worker.send_signal(number)
        async with asyncio.timeout(20):
            _, errors = await worker.communicate()
        return worker.returncode, errors

    delays = (0.1, 0.3, 0.6, 1.0, 1.5, 2.5)
    for pair in zip(delays[::2], delays[1::2], strict=True):
        for status, errors in await asyncio.gather(*map(interrupt, pair)):
            assert errors == b""
            assert status in statuses


def test_on_a_terminal_logs_are_for_eyes(shop: Shop) -> None:
    """Time, level, what, and `name=value`; Ctrl-C drains, says how long that may last, and ends with 0 (D1)."""
    controller, terminal = pty.openpty()
    worker = subprocess.Popen(
        [*COMMAND, "run"],
        cwd=shop.folder,
        env=clean_environment(shop.folder, shop.environment) | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 30
    is_interrupted = False
    while time.monotonic() < deadline:
        try:
            shown += os.read(controller, 65_536)
        except OSError:  # the terminal's last user has ended
            break
        if b"started" in shown and not is_interrupted:
            worker.send_signal(signal.SIGINT)
            is_interrupted = True
    os.close(controller)
    assert worker.wait(timeout=10) == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.decode())
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} \[info *\] started \[process\] service=shop", text, re.MULTILINE)
    assert "draining" in text
    assert "last_poll_at_most_seconds=1" in text
    assert "a second signal cuts it short" in text
    assert '{"' not in text
