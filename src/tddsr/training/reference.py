"""All keys of a recipe, from their types: a page to read, and a JSON schema by which editors check and complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tddsr.training.recipe import Recipe

_HEAD = """# Recipes: all keys

Written by `tddsr recipes --keys`. [recipe.schema.json](recipe.schema.json), by `tddsr recipes --schema`, is the same
for editors: `# yaml-language-server: $schema=PATH` on a recipe's first line.

A recipe is a YAML file. With `base`, the name of another recipe or its path from the recipe's own folder, that one is
read first and this one laid over it, mapping by mapping (a mix of presets is a mapping, too); `null` takes a key of the
base away. What the command line says, `KEY=VALUE` with dots between (`data.batch=16`), comes last.
"""
_LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


def schema() -> dict[str, Any]:
    """Of a recipe's file: a base may have what it lacks, so nothing in it must be there and all may be null."""
    base = {"type": "string", "description": "the recipe that this one is laid over: a name, or a path from its folder"}
    found: dict[str, Any] = _loosened(Recipe.model_json_schema())
    return {**found, "properties": {"base": base, **found["properties"]}}


def _loosened(node: Any) -> Any:
    if isinstance(node, list):
        return [_loosened(item) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {"anyOf" if key == "oneOf" else key: _loosened(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict):
        changed.pop("required", None)
        nothing = {"type": "null"}
        changed["properties"] = {
            key: value if nothing in value.get("anyOf", ()) else {"anyOf": [value, nothing]}
            for key, value in changed["properties"].items()
        }
    return changed


def page() -> str:
    """Every key, its type, default and meaning, in Markdown: a table for each section."""
    whole = Recipe.model_json_schema()
    parts: dict[str, list[str]] = {}
    for path, name in _sections(whole, whole["$defs"]):
        parts.setdefault(name, []).append(path)
    tables = [_table("The recipe itself", whole, whole["$defs"])]
    for name, paths in parts.items():
        section = whole["$defs"][name]
        kind = section["properties"].get("kind", {}).get("const")
        title = ", ".join(f"`{path}`" for path in paths) + (f" of kind `{kind}`" if kind else "")
        tables.append(_table(title, section, whole["$defs"]))
    return "\n".join([_HEAD, *tables]).strip()


def _sections(section: dict[str, Any], known: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, name of its type) of all sections within ``section``."""
    for key, value in section["properties"].items():
        for name in _names(value):
            yield above + key, name
            yield from _sections(known[name], known, f"{above}{key}.")


def _names(value: dict[str, Any]) -> list[str]:
    """Of the types of sections that ``value`` may be."""
    if "$ref" in value:
        return [value["$ref"].rpartition("/")[2]]
    return [name for way in ("anyOf", "oneOf") for part in value.get(way, ()) for name in _names(part)]


def _table(title: str, section: dict[str, Any], known: dict[str, Any]) -> str:
    lines = [
        f"## {title}",
        section["description"].replace("``", "`"),
        "",
        "| key | type | default | what |",
        "| --- " * 4 + "|",
    ]
    for key, value in section["properties"].items():
        lines.append(f"| `{key}` | {_type(value)} | {_default(value, known)} | {value['description']} |")
    return "\n".join([*lines, ""])


def _type(value: dict[str, Any]) -> str:
    if _names(value):
        return "section"
    if "const" in value or "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(_type(part) for part in value["anyOf"])
    if value["type"] == "array":
        items = value.get("prefixItems") or [value["items"]]
        return f"[{', '.join(map(_type, items))}{'' if 'prefixItems' in value else ', ..'}]"
    if value["type"] == "object":
        return f"{{name: {_type(value['additionalProperties'])}, ..}}"
    limits = [f"{sign} {value[name]}" for name, sign in _LIMITS.items() if name in value]
    return " ".join([value.get("format", value["type"]), ", ".join(limits)]).strip()


def _default(value: dict[str, Any], known: dict[str, Any]) -> str:
    """A section's is what it has other than its type has by itself."""
    if "default" not in value:
        return "needed"
    default = value["default"]
    if isinstance(default, dict) and (names := _names(value)):
        usual = known[names[0]]["properties"]
        default = {key: item for key, item in default.items() if item != usual[key].get("default")}
        return f"`{json.dumps(default)}`" if default else ""
    return "" if default is None else f"`{default if isinstance(default, str) else json.dumps(default)}`"
