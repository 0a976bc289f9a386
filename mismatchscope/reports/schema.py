"""The JSON schema of report.json, generated from the model.

Write it again with:  python -m mismatchscope.reports.schema > mismatchscope/reports/report.schema.json
"""

from __future__ import annotations

import json

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from .document import Report


class _InfinityAsString(GenerateJsonSchema):
    """pydantic writes infinities as strings but describes every float as a number."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"enum": ["Infinity", "-Infinity"]}]}


def report_schema() -> str:
    """The schema as JSON text (draft 2020-12)."""
    document = Report.model_json_schema(mode="serialization", schema_generator=_InfinityAsString)
    return (
        json.dumps({"$schema": GenerateJsonSchema.schema_dialect} | document, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    print(report_schema(), end="")
