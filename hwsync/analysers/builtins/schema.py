"""``json-schema``: a text is JSON of a certain form (the library jsonschema)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hwsync.analysers.builtins.parts import ENDED, OF, Argument, Builtin, is_text, judged, shown
from hwsync.analysers.run import Analysis, Run
from hwsync.installing import install
from hwsync.protocol.jsons import loads

MOST: Final = 5  # complaints in a message


def _judge(run: Run, text: str) -> Analysis:
    import jsonschema

    schema = run.arguments.get("schema")
    if schema is None:
        schema = json.loads(Path(run.arguments["schema_file"]).read_text(encoding="utf-8"))
    try:
        value = loads(text)
    except ValueError as error:
        return Analysis(False, score=0.0, message=f"It is no JSON: {shown(str(error))}.")
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    errors = sorted(kind(schema).iter_errors(value), key=lambda error: list(map(str, error.path)))
    if not errors:
        return Analysis(True, score=1.0, message="It has the form that was expected.")
    said = [f"{shown(error.json_path)}: {shown(error.message)}" for error in errors[:MOST]]
    more = [f"And {len(errors) - MOST} more."] if len(errors) > MOST else []
    return Analysis(False, score=0.0, message="\n".join([*said, *more]))


def _complaint(arguments: Mapping[str, Any]) -> str:
    if ("schema" in arguments) == ("schema_file" in arguments):
        return "arguments: give either schema or schema_file"
    try:
        import jsonschema
    except ImportError:
        return f"json-schema needs the library jsonschema: {install('schema')}"
    if "schema" in arguments:
        schema = arguments["schema"]
        try:
            jsonschema.validators.validator_for(schema).check_schema(schema)
        except jsonschema.SchemaError as error:
            return f"arguments.schema is no JSON schema: {error.message}"
    return ""


SCHEMA: Final = Builtin(
    "the text is JSON, and has the form that a JSON schema says",
    judged(_judge),
    {
        "schema": Argument("a table", lambda value: isinstance(value, dict), "the schema"),
        "schema_file": Argument(
            "the path of a file beside the TOML", is_text, "a file with it, as JSON", is_file=True
        ),
        "of": OF,
        "ended": ENDED,
    },
    _complaint,
)
