"""Validate Items and collections by the schemas of STAC and of its extensions, offline."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pystac
from pystac.validation.stac_validator import JsonSchemaSTACValidator

STAC = Path(__file__).resolve().parent / "stac"
SCHEMAS = {
    schema["$id"].removesuffix("#"): schema
    for schema in (json.loads(path.read_text()) for path in sorted((STAC / "extensions").glob("*.json")))
}
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"


def validate(document: dict[str, Any], kind: str) -> None:
    JsonSchemaSTACValidator().validate_core(document, pystac.STACObjectType(kind), "1.1.0")
    assert len(document["stac_extensions"]) == len({*document["stac_extensions"]})
    for address in document["stac_extensions"]:
        if address != CLASSIFICATION:
            jsonschema.validate(document, SCHEMAS[address])
    members = json.dumps(document)
    assert '"eo:bands"' not in members
    assert '"raster:bands"' not in members
    for prefix in ("eo", "file", "processing", "proj", "raster"):
        named = any(
            f"/{'projection' if prefix == 'proj' else prefix}/v" in each for each in document["stac_extensions"]
        )
        assert named == (f'"{prefix}:' in members), prefix
