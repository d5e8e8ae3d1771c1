"""A fleet file in a temporary directory: what it loads to, or the sentence that refuses it."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from worker.errors import ConfigError
from worker.settings import FleetSettings, load

Load = Callable[..., FleetSettings]
Refuse = Callable[..., str]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the text as `fleet.yaml`, with these variables as the whole environment."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, environ: Mapping[str, str] | None = None) -> FleetSettings:
        Path("fleet.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
        return load(Path("fleet.yaml"), environ=environ or {})

    return load_text


@pytest.fixture
def refused(loaded: Load) -> Refuse:
    """Return the one sentence that refuses the text."""

    def refuse_text(text: str, environ: Mapping[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as refusal:
            loaded(text, environ)
        sentence = str(refusal.value)
        assert "\n" not in sentence
        assert refusal.value.__cause__ is None
        assert (
            refusal.value.__suppress_context__ or refusal.value.__context__ is None
        )  # no traceback of ours or pydantic's
        return sentence

    return refuse_text
