"""The files of architectures: YAML or JSON that is read strictly, canonical JSON that is written and hashed.

Strict reading means that an unknown key, a key given twice, a value of another type and a value out of range are errors. Each
is one line that names the key, the value and its place: `best.yaml: split_ratio must lie in (0, 1], got 1.5 in backbone[2]`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, get_args

import annotated_types
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from gpnas.errors import GenotypeError

SCHEMA = 1
"""Version of the architecture YAML."""

_Model = TypeVar("_Model", bound=BaseModel)


class StrictModel(BaseModel):
    """Immutable; refuses unknown keys and converts no types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML or JSON text describes. Raises GenotypeError, one line that begins with `where`."""
    try:
        if text.startswith("{"):  # JSON is parsed a hundred times faster; YAML in flow style, which is no JSON, goes on below
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(text, object_pairs_hook=_object_of_distinct_keys)
        return yaml.load(text, _Loader)  # _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise GenotypeError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise GenotypeError(f"{where}: not a genotype: nested too deeply") from None


def validate(model: type[_Model], document: Any, where: str) -> _Model:
    """`document` as a `model`. Raises GenotypeError, one line that begins with `where` and reports the first error."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise GenotypeError(f"{where}: {_message(error, model)}") from None


def canonical_json(document: Any) -> str:
    """One line that is the same for every order of the keys."""
    return _encode(document)


def canonical_hash(text: str) -> str:
    """16 hex digits of a canonical line."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def keys_of(model: type[BaseModel]) -> str:
    """The keys that a document of `model` may have, as text."""
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def shortened(value: Any) -> str:
    """A value for an error message, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, as the YAML specification does; PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in own]  # type: ignore[no-untyped-call]
        repeated = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {repeated!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _object_of_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError when a key is given twice."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} is given twice")
        result[key] = value
    return result


def _message(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of the errors, in one line."""
    first = error.errors()[0]
    *place, key = first["loc"] or ("",)
    whole = _place(first["loc"])
    at = f" in {_place(place)}" if place else ""
    value = shortened(first["input"])
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{at}; remove it or check its spelling"
    if kind == "missing":
        return f"missing key {key!r}{at}"
    if kind == "value_error":
        return f"{context['error']}{f' in {whole}' if whole else ''}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{_place([key])} must lie in {_interval(model, first['loc'])}, got {value}{at}"
    if kind == "literal_error":
        return f"{_place([key])} must be one of {context['expected']}, got {value}{at}"
    return f"{_place([key])}: {first['msg']}, got {value}{at}"


def _place(parts: Iterable[int | str]) -> str:
    """("neck", "top_down", 1) as neck.top_down[1]."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _interval(model: type[BaseModel], place: Sequence[int | str]) -> str:
    """The bounds that the field at `place` declares, such as (0, 1]."""
    field: Any = model
    for key in (part for part in place if isinstance(part, str)):
        owner = next(part for part in _parts(field) if isinstance(part, type) and issubclass(part, BaseModel))
        field = next(field for name, field in owner.model_fields.items() if key in (name, field.alias))
    low = high = ""
    for bound in _parts(field):
        match bound:
            case annotated_types.Gt(value):
                low = f"({value}"
            case annotated_types.Ge(value):
                low = f"[{value}"
            case annotated_types.Lt(value):
                high = f"{value})"
            case annotated_types.Le(value):
                high = f"{value}]"
    return f"{low or '(-inf'}, {high or 'inf)'}"


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of: members of unions, items of lists, bounds of `Field`."""
    yield annotation
    is_field = isinstance(annotation, FieldInfo)
    for part in [annotation.annotation, *annotation.metadata] if is_field else get_args(annotation):
        yield from _parts(part)
