"""hwsync's own analysers: what they judge, and what a pupil reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwsync.analysers import Run
from hwsync.analysers.answer import read
from hwsync.analysers.builtins import BUILTINS
from hwsync.analysers.written import Wrong
from hwsync.analysers.written import read as read_toml
from hwsync.protocol.jsons import dumps

Said = tuple[Any, Any, str]


def judge(name: str, run: Run) -> Said:
    """Passed, score and message, which is what is published."""
    said = read(dumps(BUILTINS[name].analyse(run).as_json()))
    return said["passed"], said.get("score"), said.get("message", "")


def of(name: str, stdout: str, /, **arguments: Any) -> Said:
    return judge(name, Run(stdout=stdout, arguments=arguments))


@pytest.mark.parametrize(
    ("stdout", "arguments", "message"),
    [
        ("42\n", {}, ""),
        ("42", {}, ""),
        ("42  \r\n\n\n", {}, ""),
        ("42\n", {"space": "exact"}, "The ends of the lines differ."),
        ("42", {"space": "exact"}, ""),
        (" 42", {}, "Line 1: expected “42”, got “ 42”."),
        (" 42", {"space": "any"}, ""),
        ("4 2", {"space": "any"}, "Expected “42”, got “4 2”."),
        ("", {}, "Line 1 is missing: expected “42”."),
        ("42\n43\n", {}, "Line 2 is too much: “43”."),
        ("\x1b[2J\n", {}, "Line 1: expected “42”, got “\\x1b[2J”."),
        ("\u202e42", {}, "Line 1: expected “42”, got “\\u202e42”."),
        ("1" * 999, {}, f"Line 1: expected “42”, got “{'1' * 200}…”."),
    ],
)
def test_equals(stdout: str, arguments: dict[str, Any], message: str) -> None:
    passed, score, said = of("equals", stdout, expected="42", **arguments)
    assert (passed, score) == (not message, float(not message))
    assert said == (message or "It is what was expected.")


def test_equals_with_and_without_case() -> None:
    assert of("equals", "STRASSE", expected="Straße")[0] is False
    assert of("equals", "STRASSE", expected="Straße", case=False)[0] is True


def test_whose_output_was_cut_is_judged_and_told_so() -> None:
    files = {"out.txt": b"42"}
    arguments = {"expected": "42"}
    passed, _, said = judge("equals", Run(stdout="42", truncated=True, arguments=arguments))
    assert passed is True
    assert said.startswith("It is what was expected.\nIts output is longer than what is kept")
    run = Run(truncated=True, files=files, arguments=arguments | {"of": "out.txt"})
    assert judge("equals", run)[2] == "It is what was expected."


def test_what_is_looked_at() -> None:
    arguments = {"expected": "1", "of": "out.txt"}
    run = Run(files={"out.txt": b"1\n"}, arguments=arguments)
    assert judge("equals", run)[0] is True
    run = Run(files={"b": b"", "a\n": b""}, arguments=arguments)
    assert judge("equals", run) == (
        *(False, 0.0),
        "The file out.txt is missing. Files that came back: a\\n, b.",
    )
    assert judge("equals", Run(stderr="1", arguments=arguments | {"of": "stderr"}))[0] is True
    run = Run(files={"out.txt": b"\xff"}, arguments=arguments)
    assert judge("equals", run)[2] == "Line 1: expected “1”, got “\ufffd”."


def test_what_is_expected_may_stand_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "expected.txt").write_text("1\n2\n")
    assert of("equals", "1\n2\n", expected_file="expected.txt")[0] is True
    toml = 'builtin = "equals"\n[arguments]\nexpected_file = "expected.txt"\n'
    assert read_toml(toml.encode()).files == ("expected.txt",)


@pytest.mark.parametrize("name", [name for name in BUILTINS if name != "json-schema"])
@pytest.mark.parametrize(
    ("outcome", "passed", "message"),
    [
        ("error", False, "The program did not end well: error: exit code 1."),
        ("timeout", False, "The program did not end well: timeout: exit code 1."),
        ("lost", None, "There is nothing to judge: lost: exit code 1."),
    ],
)
def test_a_run_that_did_not_end_well_has_not_passed(
    name: str, outcome: str, passed: bool | None, message: str
) -> None:
    run = Run(outcome=outcome, reason="exit code 1", stdout="1")
    assert judge(name, run) == (passed, None if passed is None else 0.0, message)


def test_the_outcome_may_be_any() -> None:
    run = Run(outcome="error", stdout="1", arguments={"expected": "1", "ended": "any"})
    assert judge("equals", run)[0] is True


def test_outcome() -> None:
    assert of("outcome", "") == (True, 1.0, "The program ended well.")


def test_contains() -> None:
    assert of("contains", "Hello world", expected="world")[0] is True
    assert of("contains", "Hello", expected=["hello", "x"], case=False) == (
        *(False, 0.5),
        "Expected “x”, and it is not there.",
    )
    assert of("contains", "a b", expected="a", absent=["b"]) == (
        *(False, 0.5),
        "“b” must not be there.",
    )
    many = of("contains", "", expected=list("abcdefgh"))
    assert many[1] == 0
    assert many[2].endswith("“e”, and it is not there.\nAnd 3 more.")


def test_regex() -> None:
    passed, score, message = of("regex", "x\ntemp = 21.5\n", pattern=r"^temp = (?P<temp>[\d.]+)$")
    assert (passed, score, message) == (True, 1.0, "Found “temp = 21.5”.")
    run = Run(stdout="temp = 21.5", arguments={"pattern": r"(?P<temp>[\d.]+)"})
    assert BUILTINS["regex"].analyse(run).data == {"temp": "21.5"}
    assert of("regex", "A1", pattern="a.", case=False, whole=True)[0] is True
    assert of("regex", "A12\n", pattern="a.", case=False, whole=True) == (
        *(False, 0.0),
        "The whole output does not match “a.”. It begins with “A12\\n”.",
    )
    assert of("regex", "", pattern="a") == (
        *(False, 0.0),
        "Nothing in the output matches “a”. It begins with nothing.",
    )


@pytest.mark.parametrize(
    ("stdout", "arguments", "score", "message"),
    [
        ("x 3.14159", {"expected": 3.14, "tolerance": 0.01}, 1, "3.14159 is as expected."),
        ("0.30000000000000004", {"expected": 0.3}, 1, "0.3 is as expected."),
        ("1e3", {"expected": 1000}, 1, "1000 is as expected."),
        ("-5", {"expected": 5}, 0, "Expected 5, got -5."),
        ("v1.2.3 a5", {"expected": 5}, 0, "Expected 5, no number came."),
        ("", {"expected": 5, "relative": 0.1}, 0, "Expected 5 ± 0.5, no number came."),
        ("temp=21.5", {"expected": {"temp": 21}, "relative": 0.05}, 1, ""),
        (
            *("temp=21.5", {"expected": {"temp": 21}, "tolerance": {"temp": 0.4}}),
            *(0, "temp: expected 21 ± 0.4, got 21.5."),
        ),
        ("temp=9\ntemp=21", {"expected": {"temp": 21}}, 1, ""),
        ("temp=1\ntemp=2", {"expected": {"temp": [1, 2]}}, 1, ""),
        ("temp=1", {"expected": {"temp": [1, 2]}}, 0, "temp: expected 2 numbers, got 1."),
        (
            *("t,v\n1,2\n2,5", {"expected": {"t": 2, "v": [2, 4]}}),
            *(0.5, "v, number 2: expected 4, got 5."),
        ),
        ("a=1", {"expected": {"b": 1}}, 0, "b: expected 1, nothing came."),
        ("a=nan", {"expected": {"a": [1]}}, 0, "a: expected 1 numbers, nothing came."),
        ("a=inf", {"expected": {"a": 1}, "tolerance": 9}, 0, "a: expected 1 ± 9, got inf."),
    ],
)
def test_numeric(stdout: str, arguments: dict[str, Any], score: float, message: str) -> None:
    said = of("numeric", stdout, **arguments)
    assert said == (score == 1, score, message or "All numbers are as expected.")


def test_similar() -> None:
    assert of("similar", "a\nb\n", expected="a\nb") == (True, 1.0, "It is what was expected.")
    passed, score, message = of("similar", "a\nx\nc\nd\n", expected="a\nb\nc\nd", least=0.7)
    assert (passed, score) == (True, 0.75)
    assert message == "3 of 4 lines are as expected.\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c"
    assert of("similar", "\x1b[2J", expected="a")[2].endswith("-a\n+\\x1b[2J")
    long = of("similar", "x\n" * 999, expected="a\n" * 999)
    assert long[:2] == (False, 0.0)
    assert long[2].endswith("… and 1979 lines more")
    assert len(long[2]) < 500


def test_json_schema() -> None:
    pytest.importorskip("jsonschema")
    schema = {
        "type": "object",
        "properties": {"temp": {"type": "number"}},
        "required": ["temp"],
    }
    assert of("json-schema", '{"temp": 1}', schema=schema) == (
        *(True, 1.0),
        "It has the form that was expected.",
    )
    assert of("json-schema", '{"temp": "\\u001b"}', schema=schema) == (
        *(False, 0.0),
        "$.temp: '\\x1b' is not of type 'number'",
    )
    assert of("json-schema", "{", schema=schema)[2].startswith("It is no JSON: Expecting ")
    assert of("json-schema", '{"temp": NaN}', schema=schema)[2] == (
        "It is no JSON: NaN is not a finite number."
    )
    toml = b'builtin = "json-schema"\n[arguments]\nschema = { type = "nothing" }\n'
    with pytest.raises(Wrong, match=r"arguments.schema is no JSON schema: 'nothing' is not valid"):
        read_toml(toml)


@pytest.mark.parametrize(
    ("builtin", "arguments", "said"),
    [
        ("equals", "expected = '1'\nspace = 'all'", "arguments.space = 'all' is not allowed"),
        ("equals", "expected = '1'\nexpected_file = 'a'", "arguments: give either expected or"),
        ("contains", "", "arguments: give expected, or absent, or both"),
        ("contains", "expected = []", "arguments.expected = [] is not allowed: expected a text or"),
        ("contains", "expected = ''", "arguments.expected = '' is not allowed"),
        ("regex", "", "arguments: give pattern, a regular expression of Python's re"),
        ("regex", "pattern = '('", "arguments.pattern is no regular expression: missing )"),
        ("numeric", "", "arguments: give expected, a number, or a table with a number or a list"),
        ("numeric", "expected = 'a'", "arguments.expected = 'a' is not allowed: expected a number"),
        ("numeric", "expected = 1\ntolerance = -1", "arguments.tolerance = -1 is not allowed"),
        (
            "numeric",
            "expected = { a = 1 }\ntolerance = { b = 1 }",
            "arguments.tolerance names b, which expected does not",
        ),
        ("similar", "expected = 'a'\nleast = 2", "arguments.least = 2 is not allowed: expected a"),
        ("json-schema", "", "arguments: give either schema or schema_file"),
    ],
)
def test_wrong_arguments_are_named(builtin: str, arguments: str, said: str) -> None:
    with pytest.raises(Wrong) as caught:
        read_toml(f'builtin = "{builtin}"\n[arguments]\n{arguments}\n'.encode())
    assert str(caught.value).startswith(said)
