"""The images of the compose file: those that it names, else stand-ins built from packages where no registry is reached."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from support.docker_engine import CACHE, Engine, EngineError

__all__ = ["IMAGE", "base_image", "build_images"]

IMAGE: Final = "longshore:compose-test"
_ROOT: Final = Path(__file__).parents[2]
_BASE: Final = "python:3.13-slim-trixie"
"""The Dockerfile's default."""
_STAND_IN_BASE: Final = "longshore-stand-in/python:3.13"
_STAND_INS: Final = _ROOT / "tests" / "compose" / "stand_ins"
_KINDS: Final = ("localstack", "postgres", "mail", "prometheus")
_NOT_NEEDED: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt")
_CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
_IMPORT_CHANGES: Final = (
    "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    f"ENV PIP_CERT=/{_CERTIFICATES}",
    f"ENV SSL_CERT_FILE=/{_CERTIFICATES}",
    'CMD ["python3"]',
)


def build_images(engine: Engine) -> Mapping[str, str]:
    """Build or pull every image; return the variables that lead the compose file to them."""
    base = base_image(engine)
    images = {"LONGSHORE_IMAGE": IMAGE, "PYTHON_IMAGE": base}
    if base == _STAND_IN_BASE:
        context = CACHE / "stand_ins"
        shutil.copytree(_STAND_INS, context, dirs_exist_ok=True)
        shutil.copy(_ROOT / "requirements-localstack.lock", context)
        for kind in _KINDS:
            name = images[f"{kind.upper()}_IMAGE"] = f"longshore-stand-in/{kind}"
            _build(engine, base, name, context / f"{kind}.Dockerfile")
    _build(engine, base, IMAGE, _ROOT / "Dockerfile")
    return images


def base_image(engine: Engine) -> str:
    """Return the base image: the real one where it is there or can be pulled, else a Debian made by debootstrap."""
    for name in (_BASE, _STAND_IN_BASE):
        if _has(engine, name):
            return name
    if engine.docker("pull", "--quiet", _BASE, is_checked=False).returncode == 0:
        return _BASE
    _import_base(engine)
    return _STAND_IN_BASE


def _has(engine: Engine, image: str) -> bool:
    return engine.docker("image", "inspect", image, is_checked=False).returncode == 0


def _build(engine: Engine, base: str, name: str, dockerfile: Path) -> None:
    """Build, which takes a second where nothing has changed."""
    where = ("--file", str(dockerfile), str(dockerfile.parent))
    engine.docker("build", "--quiet", "--network", "host", "--build-arg", f"PYTHON_IMAGE={base}", "--tag", name, *where)


def _import_base(engine: Engine) -> None:
    """Make what `python:3.13-slim-trixie` is, as near as Debian's packages come.

    As there, the standard library has no bytecode. The machine's certificates go with it, for what it fetches may
    pass a proxy that only they know.
    """
    if shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        raise EngineError("no registry is reached, and there is no debootstrap; run: apt-get install debootstrap")
    root = CACHE / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
    _run("debootstrap", "--variant=minbase", packages, "trixie", str(root))
    for name, target in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")
    for path in _NOT_NEEDED:
        shutil.rmtree(root / path, ignore_errors=True)
    for file in (*root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"), *root.glob("usr/lib/python3*/**/*.pyc")):
        file.unlink()
    for folder in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (root / folder).mkdir(parents=True)
    shutil.copy(f"/{_CERTIFICATES}", root / _CERTIFICATES)
    archive = CACHE / "rootfs.tar"
    _run("tar", "--create", "--file", str(archive), "--directory", str(root), ".")
    changes = [part for change in _IMPORT_CHANGES for part in ("--change", change)]
    engine.docker("import", *changes, str(archive), _STAND_IN_BASE)
    archive.unlink()
    shutil.rmtree(root)


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise EngineError(f"{command[0]} failed: {' / '.join((ended.stderr or ended.stdout).splitlines()[-3:])}")
