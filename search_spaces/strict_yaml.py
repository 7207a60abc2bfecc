"""TODO."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gpnas.errors import GenotypeError

SCHEMA = 1
"""Version of the architecture YAML."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, as it is in the YAML specification (PyYAML takes the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in own]  # type: ignore[no-untyped-call]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError when a key is given twice."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} is given twice")
        result[key] = value
    return result


def parse(text: str, where: str) -> Any:
    try:
        if text.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text, object_pairs_hook=_without_doubles)  # what `to_json` wrote; else YAML in flow style
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise GenotypeError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise GenotypeError(f"{where}: not a genotype: nested too deeply") from None


def one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    *place, key = first["loc"] or ("",)
    at = f" in {_place(place)}" if place else ""
    value = _short(first["input"])
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{at}; remove it or check its spelling"
    if kind == "missing":
        return f"missing key {key!r}{at}"
    if kind == "value_error":
        return f"{context['error']} in {_place(first['loc'])}"
    if kind in ("greater_than", "less_than", "less_than_equal", "greater_than_equal"):
        return f"{_place([key])} must lie in {_range(place, str(key))}, got {value}{at}"
    if kind == "literal_error":
        return f"{_place([key])} must be one of {context['expected']}, got {value}{at}"
    return f"{_place([key])}: {first['msg']}, got {value}{at}"


_RANGES = {
    "split_ratio": "(0, 1]",
    "hidden_ratio": "(0, 1]",
    "mask_ratio": "(0, 1)",
    "width": "[4, 4096]",
    "depth": "[1, 32]",
    "repeats": "[1, 32]",
    "groups": "[1, 32]",
    "classes": "[1, 10000]",
    "reg_max": "[4, 32]",
    "weight": "(0, 10]",
    "schema": f"[{SCHEMA}, {SCHEMA}]",
}


def _range(place: list[Any], key: str) -> str:
    return "[0, 4]" if place == ["head"] and key == "depth" else _RANGES[key]


def _place(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
