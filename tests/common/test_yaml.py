"""YAML: what values become, where they stand, and what is refused, hostile files among it."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dacnn_search.common.errors import YamlError
from dacnn_search.common.yaml import MAX_BYTES, MAX_DEPTH, MAX_LINES, MAX_NODES, Document, dump_yaml, read_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WORDS = st.text("0123456789.+-eExo_:~#yYnN<=*&!|>%@`'\"{}[], \n\t", max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | WORDS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | WORDS, inner, max_size=4),
    max_leaves=12,
)


def read(folder: Path, content: str | bytes) -> Document:
    path = folder / "x.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    document = read_yaml(path)
    if document.problems:
        raise YamlError("\n".join(f"{path}:{line}: {rule}" for line, rule in document.problems))
    return document


def problem(folder: Path, content: str | bytes) -> str:
    """The message that reading `content` ends with, without the folder."""
    with pytest.raises(YamlError) as caught:
        read(folder, content)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.0", -0.0),
        ("+12", 12),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("<<", "<<"),
        ("=", "="),
        ("é 😀", "é 😀"),
        ("infinity", "infinity"),
        ("١٢", "١٢"),  # digits, but not those of YAML
    ],
)
def test_values_follow_the_core_schema_of_yaml_1_2(tmp_path: Path, word: str, value: object) -> None:
    for head in ("", "%YAML 1.1\n---\n"):  # a directive doesn't bring the old rules back
        found = read(tmp_path, f"{head}key: {word}\n").data["key"]
        assert (found, type(found)) == (value, type(value))


def test_merge_key_is_an_ordinary_key(tmp_path: Path) -> None:
    assert read(tmp_path, "<<: {a: 1}\nb: 2\n").data == {"<<": {"a": 1}, "b": 2}


@pytest.mark.parametrize("content", ["", "# nothing\n", "---", "\ufeff", "null"])
def test_empty_files_hold_null(tmp_path: Path, content: str) -> None:
    document = read(tmp_path, content)
    assert document.data is None
    assert document.line(()) == 1


def test_byte_order_mark_and_windows_newlines(tmp_path: Path) -> None:
    document = read(tmp_path, "\ufeffa: 1\r\nb: two\r\n")
    assert document.data == {"a": 1, "b": "two"}
    assert document.line(("b",)) == 2


def test_lines_of_keys_items_and_missing_parts(tmp_path: Path) -> None:
    document = read(
        tmp_path,
        "# comment\nname: x\n\nlayers:\n  - size: 1\n    kind: a\n  - [2,\n     3]\ntext: |\n  a\n  b\nend:\n",
    )
    assert document.data == {
        "name": "x",
        "layers": [{"size": 1, "kind": "a"}, [2, 3]],
        "text": "a\nb\n",
        "end": None,
    }
    expected = {
        (): 2,
        ("name",): 2,
        ("layers",): 4,
        ("layers", 0): 5,
        ("layers", 0, "kind"): 6,
        ("layers", 1): 7,
        ("layers", 1, 1): 8,
        ("text",): 9,
        ("end",): 12,
        ("layers", 0, "missing", "deeper"): 5,  # the nearest part around it
        ("layers", 7): 4,
        ("missing",): 2,
    }
    assert {path: document.line(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: keys must differ, but a is already on line 1"),
        ("a: {b: 1, 'b': 2}\n", "x.yaml:1: keys must differ, but b is already on line 1"),
        ("a: &x 1\n", "x.yaml:1: anchors are not supported: leave &x out"),
        ("a: 1\nb: *x\n", "x.yaml:2: aliases are not supported: write the value out instead of *x"),
        ("*x : 1\n", "x.yaml:1: aliases are not supported: write the value out instead of *x"),
        (
            "a: !!python/object/apply:os.system [x]\n",
            "x.yaml:1: tags are not supported, but this value has tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: ! b\n", "x.yaml:1: tags are not supported, but this value has !"),
        ("a:\n  !!int '1'\n", "x.yaml:2: tags are not supported, but this value has tag:yaml.org,2002:int"),
        ("a: 1\n3: x\n", "x.yaml:2: keys must be strings, but this one is 3 without quotes"),
        ("true: x\n", "x.yaml:1: keys must be strings, but this one is true without quotes"),
        (": x\n", "x.yaml:1: keys must be strings, but this one is empty without quotes"),
        ("[a]: x\n", "x.yaml:1: keys must be strings, but this one is a mapping or a list"),
        ("a: .inf\n", "x.yaml:1: numbers must be finite, but this one is .inf"),
        ("a: -.INF\n", "x.yaml:1: numbers must be finite, but this one is -.INF"),
        ("a: .nan\n", "x.yaml:1: numbers must be finite, but this one is .nan"),
        ("a: 1e999\n", "x.yaml:1: numbers must be finite, but this one is 1e999"),
        (f"a: {'9' * 5000}\n", "x.yaml:1: whole numbers may have at most 100 digits, but this has 5,000"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: a file must hold one document, but a second one begins here"),
        ('a: "\\ud800"\n', "x.yaml:1: text must be Unicode, but this has half of a surrogate pair"),
        ("a: 1\nb: \x07\n", "x.yaml:2: control characters must be escaped, but U+0007 is not"),
        (b"a: 1\nb: \xff\n", "x.yaml:2: text must be UTF-8, but has the byte 0xff"),
        ("a: 1\n".encode("utf-16"), "x.yaml:1: text must be UTF-8, but has the byte 0xff"),
    ],
)
def test_refusals_name_line_rule_and_value(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert problem(tmp_path, content) == message


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a: b: c\n", 1),
        ("a: 1\n\t- b\n", 2),
        ("a: [1,\n\n  2\n", 4),
        ("a: 'b\n\n", 3),
        ("a: @b\n", 1),
        ("- a\nb: 1\n", 2),
        ('a: 1\nb: "\\q"\n', 2),
        ('"\\UFFFFFFFF"\n', 1),
        ('"\\U00110000"\n', 1),
        ("%YAML 9.9\n---\na\n", 1),
        ("%YAML 1.0\n---\na\n", 1),
        ("a: !e!x 1\n", 1),
    ],
)
def test_syntax_errors_are_one_line_with_the_place(tmp_path: Path, content: str, line: int) -> None:
    message = problem(tmp_path, content)
    assert message.startswith(f"x.yaml:{line}: not valid YAML: ")
    assert "\n" not in message


def test_all_problems_at_once(tmp_path: Path) -> None:
    message = problem(tmp_path, "a: 1\na: &x 2\n3: !y 4\nb: [.nan\n")
    assert [line.split(":")[1] for line in message.split("\n")] == ["2", "2", "3", "3", "4", "5"]
    assert len(problem(tmp_path, "[" + ".nan," * 1000 + "]").split("\n")) == 21


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match=r"/none\.yaml: no such file$"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(YamlError, match=r"not a file$"):
        read_yaml(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(YamlError, match=r"/pipe: not a file$"):
        read_yaml(tmp_path / "pipe")


def test_bounds_are_met_but_not_crossed(tmp_path: Path) -> None:
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    read(tmp_path, nested)
    assert "32 deep" in problem(tmp_path, f"[{nested}]")
    read(tmp_path, "- a\n" * (MAX_NODES - 1))
    assert "20,000 values and keys" in problem(tmp_path, "- a\n" * MAX_NODES)
    read(tmp_path, "a".ljust(MAX_BYTES))
    assert problem(tmp_path, "a".ljust(MAX_BYTES + 1)) == (
        "x.yaml: a file may have at most 1,048,576 bytes, but has 1,048,577"
    )
    read(tmp_path, "\n" * (MAX_LINES - 1))
    assert problem(tmp_path, "\n" * MAX_LINES) == "x.yaml: a file may have at most 50,000 lines, but has 50,001"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("[" * 3000 + "]" * 3000, id="3,000 lists on a line"),
        pytest.param("[" * MAX_BYTES, id="lists without end"),
        pytest.param("{" * MAX_BYTES, id="mappings without end"),
        pytest.param("- " * (MAX_BYTES // 2), id="block lists"),
        pytest.param("? " * (MAX_BYTES // 2), id="block keys"),
        pytest.param("".join(" " * i + "a:\n" for i in range(1400)), id="indented mappings"),
        pytest.param("a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(900)), id="alias bomb"),
        pytest.param("%a\n" * 49_000, id="directives"),
        pytest.param("[" + "1," * 500_000 + "]", id="many items"),
        pytest.param("a: " + "9" * 1_000_000, id="long number"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, content: str) -> None:
    message = problem(tmp_path, content)
    assert len(message) < 5000


def test_huge_sparse_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.yaml").open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(YamlError, match="at most 1,048,576 bytes, but has 104,857,600"):
        read_yaml(tmp_path / "x.yaml")


@given(text=st.text("ab01.:-,?|>[]{}#&*!%@'\"\\ \n\tux", max_size=40) | st.text(max_size=40) | st.binary(max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_file_gives_json_data_or_a_yaml_error(text: str | bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = text.encode(errors="replace") if isinstance(text, str) else text
    try:
        document = read(tmp_path_factory.getbasetemp(), content)
    except YamlError:
        return
    assert json.loads(json.dumps(document.data, allow_nan=False)) == document.data


@given(data=VALUES)
@settings(max_examples=150, deadline=None)
def test_dump_is_read_back_as_it_was(data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    again = read(tmp_path_factory.getbasetemp(), dump_yaml(data)).data
    assert json.dumps(again) == json.dumps(data)  # tells 1 from 1.0 and True, and keeps the order of keys


def test_dump_is_block_style_in_the_given_order() -> None:
    shared = [1, 2]
    text = dump_yaml({"name": "né", "a": {"list": shared, "again": shared}, "word": "1e3", "rate": 1e-5, "none": None})
    assert text == (
        'name: né\na:\n  list:\n    - 1\n    - 2\n  again:\n    - 1\n    - 2\nword: "1e3"\nrate: 1e-05\nnone: null\n'
    )


def test_dump_refuses_floats_that_are_not_finite() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            dump_yaml({"a": value})
