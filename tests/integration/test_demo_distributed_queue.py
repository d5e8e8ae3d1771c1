"""`longshore demo --fleet distributed-queue`: a burst, and a limit that all workers keep to together."""

import asyncio
import io
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.command import COMMAND, clean_environment, longshore, mistake
from support.redis import Redis

from worker import Ack, LongshoreError
from worker.demo import Burst, Demo, Show
from worker.demo.distributed_queue.workers import Workers
from worker.demo.tethered import Tethered
from worker.handlers.notice_database import NoticeDatabase
from worker.handlers.notices import Notice, records
from worker.testing import run

pytestmark = pytest.mark.integration

FLEET = Path(__file__).parents[2] / "config/distributed-queue.yaml"


@pytest.fixture
def _no_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a `redis-server`."""
    monkeypatch.setenv("PATH", str(tmp_path))


async def show(burst: Burst) -> tuple[int, str]:
    """Return the exit status of a demo and what it has said."""
    output = io.StringIO()
    status = await Demo(Show(Console(file=output)), burst).run()
    return status, output.getvalue()


def most_calls(text: str) -> int:
    found = re.search(r"(\d+) calls at once at most", text)
    assert found, text
    return int(found[1])


@pytest.mark.redis
async def test_three_workers_keep_to_one_limit(redis: Redis) -> None:
    """Every notice is one row and, if it asked for it, one SMS; the API never had more than five calls, and refused none."""
    status, text = await show(Burst(events=120, redis=redis.make_database(), call_seconds=0.1))
    assert status == 0, text
    assert "3 workers keep to the limit together" in text
    assert "books balance" in text
    assert most_calls(text) <= 5
    assert "60 SMS sent" in text
    assert " 0 refused (429)" in text
    assert "messages received again: 0" in text
    assert "the SMS API is slow" in text


@pytest.mark.redis
def test_a_redis_of_our_own_ends_with_the_demo(tmp_path: Path) -> None:
    """Nobody has to start one; and what was started is gone in the end, its password and its port with it."""
    ended = longshore(
        *("demo", "--fleet", "distributed-queue", "--events", "20"),
        folder=tmp_path,
        environment={"TMPDIR": str(tmp_path)},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "3 workers keep to the limit together" in ended.stdout
    assert left_in(tmp_path) == []
    assert running(tmp_path) == []


@pytest.mark.redis
async def test_workers_that_count_for_themselves_are_too_many_for_the_api(redis: Redis) -> None:
    """Three times five calls: the API refuses some, and the books say so."""
    apart = {"LONGSHORE_LIMITS__SMS_API__SCOPE": "process", "LONGSHORE_LIMITS__SMS_API__STORE": "null"}
    status, text = await show(
        Burst(events=120, redis=redis.make_database(), call_seconds=0.5, variables=apart),
    )
    assert status == 1
    assert most_calls(text) > 5
    assert "books do not balance: the SMS API had" in text
    assert "calls (429)" in text


@pytest.mark.usefixtures("_no_redis")
async def test_without_redis_one_worker_keeps_to_the_limit() -> None:
    """Several could not count together, and each for itself would be three times the limit: it says so, and runs one."""
    status, text = await show(Burst(events=40, call_seconds=0.05))
    assert status == 0, text
    assert "one worker, whose limit is the fleet's" in text
    assert most_calls(text) <= 5
    assert "books balance" in text


@pytest.mark.usefixtures("_no_redis")
async def test_a_database_that_was_used_before_keeps_the_same_books(orders_url: str) -> None:
    """Of each kind; what other days have written is not counted."""
    async with NoticeDatabase(orders_url) as database:
        notice = Notice(notice_id="of-another-day", to="+4915112345678", text="x")
        deliveries = (run(records, notice, state=database, id=f"message-{number}") for number in range(5))
        assert await asyncio.gather(*deliveries) == [Ack()] * 5
        status, text = await show(Burst(events=12, database=orders_url, call_seconds=0.05))
        assert status == 0, text
        assert await database.count() == (13, 13)


@pytest.mark.usefixtures("_no_redis")
async def test_without_the_limit_the_api_refuses_calls() -> None:
    """It is the limit that keeps the books: with more permits, a worker with room for twenty makes more calls than allowed."""
    broken = {"LONGSHORE_LIMITS__SMS_API__CONCURRENCY": "30", "LONGSHORE_QUEUES__SMS_SENDING__CONCURRENCY": "20"}
    status, text = await show(Burst(events=60, call_seconds=0.5, variables=broken))
    assert status == 1
    assert most_calls(text) > 5
    assert "books do not balance: the SMS API refused" in text


@pytest.mark.parametrize(
    ("redis", "sentence"),
    [
        ("redis://127.0.0.1:1/0", "the Redis that --redis names does not serve (ConnectionError"),
        ("redis://:secret@h:p/0", "the address that --redis gives is none of Redis"),
        ("unix:///secret", "the address that --redis gives is none of Redis"),
    ],
)
def test_a_redis_that_is_none_is_refused_before_anything_starts(tmp_path: Path, redis: str, sentence: str) -> None:
    said = mistake(longshore("demo", "--fleet", "distributed-queue", "--redis", redis, folder=tmp_path))
    assert sentence in said
    assert "secret" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of the burst: workers drain, the books so far are shown, and no process is left."""
    environment = clean_environment(tmp_path, {"TMPDIR": str(tmp_path)})
    demo = await asyncio.create_subprocess_exec(
        *COMMAND, *("demo", "--fleet", "distributed-queue", "--events", "2000"),
        cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert demo.stdout is not None
    text = ""
    while "/2000" not in text:  # the books are being filled
        line = await demo.stdout.readline()
        assert line, text
        text += line.decode()
    assert len(running(tmp_path)) > 2
    demo.send_signal(number)
    text += (await demo.stdout.read()).decode()
    assert await demo.wait() == 130, text
    assert text.splitlines()[-1].startswith("interrupted: ")
    assert running(tmp_path) == []
    assert left_in(tmp_path) == []


async def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LongshoreError, match=r"^worker 1 did not start: longshore: the fleet file .* does not exist"):
        await Workers(1, tmp_path / "none.yaml", tmp_path, {}).__aenter__()


async def test_a_program_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    program = await Tethered.start("it", (sys.executable, "-c", stubborn), tmp_path / "log", os.environ)
    while "up" not in program.log.read_text():  # noqa: ASYNC110 - what it says goes to a file
        await asyncio.sleep(0.05)
    assert program.last_words == "up"
    assert await program.end(within_seconds=0.1) == -signal.SIGKILL


@pytest.mark.parametrize("is_up", [True, False])
async def test_a_program_ends_with_whoever_started_it(tmp_path: Path, is_up: bool) -> None:  # noqa: FBT001 - a case
    """Also when that is killed, and nobody can clean up; or so early that the program has not begun yet."""
    starter = (
        "import asyncio, os, pathlib, sys\n"
        "from worker.demo.tethered import Tethered\n"
        "async def main():\n"
        "    log = pathlib.Path(sys.argv[1])\n"
        "    program = await Tethered.start('it', (sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)'), log, os.environ)\n"
        "    print(program.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", starter, str(tmp_path / "log")), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    while is_up and not (tmp_path / "log").read_text():  # noqa: ASYNC110 - what it says goes to a file
        await asyncio.sleep(0.05)
    assert alive(pid)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(20):
        while alive(pid):  # noqa: ASYNC110 - it is not our child
            await asyncio.sleep(0.05)


def left_in(folder: Path) -> list[Path]:
    """Return what lies in the folder."""
    return list(folder.iterdir())


def alive(pid: int) -> bool:
    """Say whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def running(folder: Path) -> list[int]:
    """Return the processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = (process / "cwd").readlink().is_relative_to(folder)
        except OSError:
            continue
        if is_ours:
            found.append(int(process.name))
    return found
