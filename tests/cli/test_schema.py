"""`upsert_cli/schema` describes every JSON output field by field, and every output matches it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests.support.schemas import FOLDER, text_of, whole
from tests.support.terminal import Terminal
from upsert_cli.text import safe_json

SCHEMAS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
ITEM = {"object_id": "a", "payload": {"text": "x", "year": 2024}, "item_info": {"origin": "here"}}


def _closed(schema: Any, *, root: bool = True) -> Any:
    """Return a schema that refuses undescribed fields; composed schemas are closed as a whole."""
    if isinstance(schema, list):
        return [_closed(each, root=root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        name: {key: _closed(each, root=False) for key, each in value.items()}
        if name == "properties"
        else [*value]
        if name == "allOf"
        else _closed(value, root=root if name == "oneOf" else False)
        for name, value in schema.items()
    }
    if not root and "properties" in schema:
        closed["additionalProperties"] = False
    return closed


def _with_closed_ends(schema: dict[str, Any]) -> dict[str, Any]:
    whole = {key: value for key, value in schema.items() if key != "$defs"}
    ends = schema.get("oneOf", [whole])
    closed = [_closed(end) | ({} if end.get("type") == "array" else {"unevaluatedProperties": False}) for end in ends]
    return ({"oneOf": closed} if "oneOf" in schema else closed[0]) | {"$defs": schema.get("$defs", {})}


def _check(name: str, value: Any) -> None:
    jsonschema.validate(value, SCHEMAS[name])  # as a user would
    jsonschema.Draft202012Validator(_with_closed_ends(SCHEMAS[name])).validate(value)


def _events(output: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in output.splitlines()]
    for event in events:
        _check("events.json", event)
    assert [event["type"] for event in events].index("summary") == len(events) - 1
    return events


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_each_schema_is_valid(name: str) -> None:
    """Each file is a valid schema that is closed only in tests, so that a new field breaks no reader."""
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert "additionalProperties" not in json.dumps(SCHEMAS[name]).replace('"additionalProperties": {', "")
    assert SCHEMAS[name]["title"]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_each_schema_is_whole_by_itself(name: str) -> None:
    """A schema contains every schema that it refers to; `python -m tests.support.schemas` copies them."""
    stem = name.removesuffix(".json")
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of(whole(stem))


def test_help_prints_each_schema(terminal: Terminal) -> None:
    """`help json NAME` prints the file; the page names all of them, and a wrong name gets the nearest one."""
    page = terminal.type("upsert-cli help json").stdout
    for name, schema in SCHEMAS.items():
        stem = name.removesuffix(".json")
        assert f"`{stem}`" in page
        assert json.loads(terminal.type(f"upsert-cli help json {stem}").stdout) == schema
    assert "did you mean `upsert-cli help json events`?" in terminal.type("upsert-cli help json event", expect=2).stderr


def test_an_undescribed_field_fails_the_check() -> None:
    """The check in this file detects a new, a missing and a mistyped field, at the top and inside."""
    good = {"type": "error", "message": "m", "exit_code": 1}
    _check("events.json", good)
    for bad in (
        good | {"new": 1},
        {"type": "error", "message": "m"},
        good | {"exit_code": "1"},
        good | {"type": "else"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            _check("events.json", bad)
    counts = dict.fromkeys(SCHEMAS["counts.json"]["properties"], 0)
    progress = {"type": "progress", "rows": 0, "total": None, "read": 0, "embedded": 0, "counts": counts}
    _check("events.json", progress)
    _check("counts.json", counts)
    with pytest.raises(jsonschema.ValidationError):
        _check("counts.json", counts | {"new": 0})


def test_output_about_loads_matches_the_schemas(tiny: Terminal) -> None:
    """Events, tasks, rejects, verification, query and the journal, for loads that succeed, reject, fail and do nothing."""
    tags = {"text": "x", "tags": ["p"]}
    tiny.write("a.jsonl", [ITEM, {"object_id": 7, "payload": 3}, ITEM | {"payload": tags}, ITEM | {"object_id": "b"}])
    (tiny.folder / "b.jsonl").write_text("not JSON\n")
    seen = _events(tiny.type("upsert-cli run a.jsonl b.jsonl --json --task-id t --verify", expect=3).stdout)
    assert {"task", "reject", "verification", "summary"} <= {event["type"] for event in seen}
    _events(tiny.type("upsert-cli run a.jsonl b.jsonl --json --task-id t", expect=3).stdout)  # is done already
    _events(tiny.type("upsert-cli run a.jsonl --json --task-id t", expect=4).stdout)
    _events(tiny.type("upsert-cli run a.jsonl --json --dry-run", expect=3).stdout)
    _events(tiny.type("upsert-cli run a.jsonl --json --threads 0", expect=2).stdout)
    _events(tiny.type("upsert-cli run a.jsonl --json --enqueue --task-id q", expect=0).stdout)
    _check("task.json", json.loads(tiny.type("upsert-cli cancel q --json").stdout))
    *_, last = [json.loads(line) for line in tiny.type("upsert-cli work --json").stdout.splitlines()]
    _check("events.json", last)
    previewed = [json.loads(line) for line in tiny.type("upsert-cli preview a.jsonl --json").stdout.splitlines()]
    assert {line["type"] for line in previewed} == {"duplicate", "reject", "record"}
    for line in previewed:
        _check("preview.json", line)
    _check("task.json", json.loads(tiny.type("upsert-cli info t --json").stdout))
    tasks = json.loads(tiny.type("upsert-cli list --json").stdout)
    _check("tasks.json", tasks)
    for task in tasks:
        _check("task.json", task)
        _check("counts.json", task["counts"])
        for record in task["failed_items"]:
            _check("reject.json", record)
    for line in tiny.type("upsert-cli info t --failed").stdout.splitlines():
        _check("reject.json", json.loads(line))
    model = f"--model-path {tiny.env['UPSERT_CLI_RUN_MODEL_PATH']}"
    _check("query.json", json.loads(tiny.type(f"upsert-cli query x --json {model}").stdout))
    _check("verification.json", json.loads(tiny.type("upsert-cli verify t --json --repair").stdout))
    _check("verification.json", json.loads(tiny.type("upsert-cli verify none --json", expect=1).stdout))
    _check("journal.json", json.loads(tiny.type("upsert-cli journal check --json").stdout))
    _check("journal.json", json.loads(tiny.type("upsert-cli journal repair --json").stdout))
    _check("collections.json", json.loads(tiny.type("upsert-cli collections --json").stdout))
    tiny.write("refused.jsonl", [{"object_id": "a", "payload": {"vector": [1]}}])
    tiny.type("upsert-cli run refused.jsonl --model none --collection vectors")
    for collection, code in (("default", 0), ("vectors", 3)):
        line = f"upsert-cli export {collection} out.jsonl --json"
        _check("export.json", json.loads(tiny.type(line, expect=code).stdout))
    _check("prune.json", json.loads(tiny.type("upsert-cli prune --status canceled --json").stdout))
    _check("renaming.json", json.loads(tiny.type("upsert-cli collections rename default docs --json").stdout))
    _check("deletion.json", json.loads(tiny.type("upsert-cli collections delete docs --yes --json").stdout))
    _check("config.json", json.loads(tiny.type("upsert-cli config show --json").stdout))


def test_output_about_models_matches_the_schemas(terminal: Terminal) -> None:
    """`models list`, and `models check`, which includes the output of `models fetch`."""
    _check("models.json", json.loads(terminal.type("upsert-cli models list --json").stdout))
    model = json.loads(terminal.type("upsert-cli models check --json --offline").stdout)
    _check("model.json", model)
    assert safe_json(model)
