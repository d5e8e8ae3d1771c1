"""The fleet file as YAML: each mistake with its line, in one sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ConfigError
from worker.settings.document import parse


def refusal(content: bytes) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(content, "fleet.yaml")
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "fleet.yaml is empty, but"),
        (b"# nothing yet\n", "fleet.yaml is empty, but"),
        (b"- a\n- b\n", "fleet.yaml is a list at its top, but must be a mapping"),
        (b"orders", "fleet.yaml is 'orders' at its top, but must be a mapping"),
        (b"aws:\n\tregion: x\n", "line 2, column 1: indent with spaces"),
        (b"a: 1\nb: [1, 2\n", "fleet.yaml is not YAML: line 3, column 1: "),
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' is there already, on line 1"),
        (b"q:\n  a: 1\n  a: 1\n", "line 3, column 3: the key 'a' is there already, on line 2"),
        (b"a: 1\nb: caf\xe9\n", "line 2 has the byte 0xe9, which is not UTF-8"),
        (b"\xff\xfea\x00", "line 1 has the byte 0xff, which is not UTF-8"),
        (b"a: \x01\n", "character #x0001"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
        (b"a: !!python/object:os.system {}\n", "line 1, column 4: could not determine a constructor"),
        (b"a: *nowhere\n", "line 1, column 4: found undefined alias"),
        (b"? [a]\n: 1\n", "line 1, column 3: a key must be text"),
        (b"a: !!int x\n", "fleet.yaml is not YAML: invalid literal"),
        (b"[" * 1000, "nested too deeply"),
    ],
)
def test_what_is_no_fleet_file_is_refused_in_one_sentence(content: bytes, said: str) -> None:
    """File, line, column and what is wrong (X1)."""
    assert said in refusal(content)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("010", 10), ("12:30", "12:30"), ("1_000", "1_000"),
        ("2024-13-45", "2024-13-45"), ("null", None), ("~", None), ("", None), ("none", "none"), ("-1.5e3", -1500.0),
        ("0x10", "0x10"), ("9" * 5000, float("9" * 5000)), ("'4'", "4"),
    ],
)  # fmt: skip
def test_scalars_are_what_they_look_like(written: str, meant: object) -> None:
    """Norway is no boolean, a leading zero no octal number, a time no number, a date no date."""
    value = parse(f"a: {written}\n".encode(), "fleet.yaml")["a"]
    assert value == meant
    assert type(value) is type(meant)


def test_anchors_and_merge_keys_work() -> None:
    content = b"base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n"
    assert parse(content, "f")["other"] == {"a": 1, "b": 3}


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n", "f") == {"a": 1}


@given(st.binary(max_size=80))
def test_any_bytes_are_a_mapping_or_one_sentence(content: bytes) -> None:
    """No content of a file ends in a traceback (X1)."""
    assert_mapping_or_sentence(content)


@given(st.text(alphabet="a:- \n\t[]{}&*!|>'\"%@`#,?<0123.e~", max_size=40))
def test_any_punctuation_is_a_mapping_or_one_sentence(text: str) -> None:
    """The same for what is nearly YAML."""
    assert_mapping_or_sentence(text.encode())


def assert_mapping_or_sentence(content: bytes) -> None:
    try:
        parsed = parse(content, "fleet.yaml")
    except ConfigError as error:
        sentence = str(error)
    else:
        sentence = "fleet.yaml"
        assert isinstance(parsed, dict)
    assert sentence.startswith("fleet.yaml")
    assert "\n" not in sentence
