"""All fields of a section of settings, nested ones too, and other values for them."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

Kind = type[BaseModel]


def leaves(kind: Kind, above: str = "") -> dict[str, Any]:
    """Annotations of all fields by their dotted names."""
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= leaves(inner, f"{above}{name}.")
        else:
            found[above + name] = inner
    return found


def value_of(section: BaseModel, name: str) -> Any:
    value: Any = section
    for part in name.split("."):
        value = getattr(value, part)
    return value


def with_value(section: BaseModel, name: str, value: Any) -> Any:
    """A copy with one field changed, unchecked."""
    first, _, rest = name.partition(".")
    return section.model_copy(update={first: with_value(getattr(section, first), rest, value) if rest else value})


def another(value: Any, annotation: Any) -> Any:
    """Some other value of a field's type; whether it is allowed is not asked."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not type(None)]
        annotation = kinds[1] if isinstance(value, BaseModel) and isinstance(value, kinds[0]) else kinds[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_validate({name: another(None, each) for name, each in leaves(annotation).items()})
    while get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return next(each for each in get_args(annotation) if each != value)
    if get_origin(annotation) is list:
        if value:
            return value[:-1] or [*value, *value]
        return [another(None, get_args(annotation)[0])]
    if get_origin(annotation) is dict:
        return {**(value or {}), "elsewhere": 1.0}
    if annotation is bool:
        return not value
    if annotation is str:
        return f"{value or ''}elsewhere"
    assert annotation in (int, float), annotation
    return annotation((value or 0) + 1)
