"""The JSON Schema of a study file, for editors."""

from __future__ import annotations

import json
from typing import Any

from invertigo.auditing.scenario import Scenario
from invertigo.studies.spec import Study

FILE = "study.schema.json"
"""Its name beside this file; editors find it with `# yaml-language-server: $schema=...` on top of a study."""


def study_schema() -> dict[str, Any]:
    """The schema, with the keys of a scenario for `base` (dotted ones are allowed too)."""
    schema = Study.model_json_schema()
    scenario = Scenario.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= scenario.pop("$defs")
    dotted = {r"^[a-z_]+(\.[a-z_]+)+$": {}}
    schema["$defs"]["Scenario"] = {**scenario, "patternProperties": dotted}
    for owner in (schema, schema["$defs"]["Preset"]):
        base = owner["properties"]["base"]
        owner["properties"]["base"] = {"$ref": "#/$defs/Scenario", "description": base["description"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"
