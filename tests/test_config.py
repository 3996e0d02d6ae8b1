"""Strict YAML to dataclass: one line, the key's full path, the nearest valid one."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from biossl.config import build, dump_yaml, load_yaml, parse_scalar, parse_yaml, to_plain
from biossl.errors import RequestError


@dataclass
class Inner:
    rates: list[float]
    mode: Literal["fast", "slow"] = "fast"


@dataclass
class Outer:
    n: int
    x: float = 1.0
    text: str = ""
    flag: bool = False
    inner: Inner | None = None
    items: list[Inner] = field(default_factory=list)
    table: dict[str, Inner] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("n must not be negative; give 0 or more")


def message(raw, prefix=""):
    with pytest.raises(RequestError) as error:
        build(Outer, raw, where="f.yaml", prefix=prefix)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_whole_numbers_pass_as_floats_and_nested_dataclasses_are_filled():
    got = build(
        Outer, {"n": 1, "x": 2, "inner": {"rates": [1, 2.5]}, "table": {"a": {"rates": []}}, "free": {"k": [1, "x"]}}, where="f"
    )
    assert (
        isinstance(got.x, float)
        and got.inner == Inner([1.0, 2.5])
        and got.table["a"] == Inner([])
        and got.free == {"k": [1, "x"]}
    )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"n": 1, "innr": {}}, "key 'innr' is not known; did you mean 'inner'?"),
        ({"n": 1, "inner": {"rate": []}}, "key 'inner.rate' is not known; did you mean 'rates'?"),
        ({"n": 1, "items": [{"rates": []}, {}]}, "key 'items[1].rates' is missing"),
        ({"n": 1, "table": {"a": {"rates": [], "mod": "fast"}}}, "key 'table.a.mod' is not known; did you mean 'mode'?"),
        ({}, "key 'n' is missing"),
        ({"n": 1.5}, "key 'n' must be a whole number, not 1.5"),
        ({"n": True}, "key 'n' must be a whole number, not True"),
        ({"n": None}, "key 'n' must be a whole number, not None"),
        ({"n": 1, "x": "abc"}, "key 'x' must be a number, not 'abc'"),
        ({"n": 1, "x": False}, "key 'x' must be a number, not False"),
        ({"n": 1, "text": 5}, "key 'text' must be text (put it in quotes), not 5"),
        ({"n": 1, "flag": "yes"}, "key 'flag' must be true or false, not 'yes'"),
        ({"n": 1, "inner": 3}, "'inner' must hold keys and values, not 3"),
        ({"n": 1, "inner": {"rates": [1, "x"]}}, "key 'inner.rates[1]' must be a number, not 'x'"),
        ({"n": 1, "inner": {"rates": [], "mode": "fst"}}, "key 'inner.mode' cannot be 'fst'; did you mean 'fast'?"),
        ({"n": -1}, "n must not be negative"),
    ],
)
def test_each_fault_is_one_line_with_the_key(raw, text):
    got = message(raw)
    assert got.startswith("f.yaml: ") and text in got


def test_the_prefix_names_the_section():
    assert "key 'mask.n' is missing" in message({}, prefix="mask.")
    assert message({"n": -1}, prefix="mask.").startswith("f.yaml: 'mask': n must not")


def test_yaml_numbers_and_text_mean_what_people_expect(tmp_path):
    raw = parse_yaml("a: 1e-3\nb: 00123\nc: no\nd: 2024-01-01\ne: 0.5\nf: null\ng: -2.5e-5\nh: 1e4\ni: on\nj: 0\n", where="f")
    assert raw == {
        "a": 1e-3,
        "b": "00123",
        "c": "no",
        "d": "2024-01-01",
        "e": 0.5,
        "f": None,
        "g": -2.5e-5,
        "h": 1e4,
        "i": "on",
        "j": 0,
    }
    assert parse_scalar("[1, 2]") == [1, 2] and parse_scalar("true") is True and parse_scalar("1e-4") == 1e-4


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "an empty file"),
        ("- 1\n", "found list"),
        ("a: [1\nb: 2\n", "line 2: not valid YAML"),
        ("a: !!python/name:os.system\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path, text, part):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(RequestError) as error:
        load_yaml(path)
    assert str(path) in str(error.value) and part in str(error.value)


def test_a_key_written_twice_is_refused(tmp_path):
    with pytest.raises(RequestError, match="line 3: .*'steps' twice"):
        parse_yaml("train:\n  steps: 5\n  steps: 7\n", where="f")


def test_a_missing_file_and_a_binary_file(tmp_path):
    with pytest.raises(RequestError, match="no such file"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(RequestError, match="not a readable text file"):
        load_yaml(tmp_path / "b.yaml")


def test_dump_and_read_back_give_the_same():
    value = Outer(
        n=3, x=2.5e-5, text="00123", inner=Inner([1e-6, 0.25]), free={"a": "no", "b": None, "c": "1e5", "d": "null", "1e3": 1e-05}
    )
    raw = parse_yaml(dump_yaml(value), where="f")
    assert raw == to_plain(value) and build(Outer, raw, where="f") == value
