"""What is wrong with a document, field by field: Pydantic's errors with paths as the user wrote them, and remedies."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.errors import MAX_ERRORS, FieldError, InvalidInput
from service.spec.data import FolderDataset, NamedDataset
from service.spec.lr_set import KINDS_BY_KEY
from service.spec.methods import MethodName
from service.spec.methods.fixed import LrScheduleKind
from service.spec.moved_keys import RENAMED, moved_key
from service.spec.optimizer import OptimizerName
from service.spec.stpt import SelectorName
from service.spec.task import TaskName
from service.spec.types import Frozen


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of (key, value) `pairs`, as json's object_pairs_hook. Raises InvalidInput when a key stands there
    twice."""
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise InvalidInput([FieldError(_shown(key), _shown(value), "stands there twice; keep one of them")])
        mapping[key] = value
    return mapping


def field_errors(error: ValidationError, model: type[Frozen]) -> list[FieldError]:
    """Pydantic's errors about a `model`, one for each wrong field: paths as the user wrote them, without union tags,
    with indices in brackets. Those behind the first MAX_ERRORS, which are counted alone, have the bare message."""
    found = error.errors(include_url=False)
    told = [_field_error(details, model) for details in found[:MAX_ERRORS]]
    return [
        *told,
        *(FieldError(_path(details["loc"]) or "body", None, details["msg"]) for details in found[MAX_ERRORS:]),
    ]


def _field_error(details: ErrorDetails, model: type[Frozen]) -> FieldError:
    value, message = details["input"], details["msg"].removeprefix("Value error, ")
    path = _path(details["loc"]) or "body"
    match details["type"]:
        case "missing":
            value = None  # not the object that lacks it
        case "json_invalid" if "recursion limit" in message:
            message = "brackets are nested too deeply: 200 inside each other at most; no spec needs ten"
        case "union_tag_invalid":  # `dataset: nope`, or {name: nope}
            context = details["ctx"]
            value, message = context["tag"], f"must be one of {context['expected_tags']}"
            message = RENAMED.get((path.rpartition(".")[2].partition("[")[0], value), message)
        case "union_tag_not_found" if path.endswith("lr_set"):
            message = f"the keys do not tell its kind; it needs one of {', '.join(KINDS_BY_KEY)}"
        case "union_tag_not_found":
            names = [name for one in _models_at(details["loc"], model) for name in _names_of(one)]
            tag = details["ctx"]["discriminator"].strip("'")
            path, value, message = f"{path}.{tag}", None, f"Field required: one of {', '.join(map(repr, names))}"
        case "extra_forbidden":
            *before, key = details["loc"]
            [owner] = _models_at(tuple(before), model)
            message = moved_key(owner, str(key)) or unknown_key(str(key), owner.model_fields)
    return FieldError(path, _shown(value), message)


def unknown_key(key: str, known: Iterable[str], what: str = "key") -> str:
    """The message about a key that is not among the known ones: the nearest of them, and all of them; `what` names the
    kind of thing."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown {what}; {f'did you mean {near[0]}? ' if near else ''}known: {', '.join(known) or 'none'}"


def _models_at(loc: tuple[int | str, ...], model: type[Frozen]) -> list[type[Frozen]]:
    """The models that may stand at `loc` in a `model`: several for a union whose tag the location does not name."""
    models, is_key, is_tagged = [model], False, False
    for part in loc:
        if isinstance(part, int) or is_key:
            is_key = False
            continue
        if not is_tagged and (tagged := [one for one in models if part in _names_of(one)]):
            models, is_tagged = tagged, True  # what follows is a field, also where it is called like the tag
            continue
        is_tagged = False
        annotations = [one.model_fields[part].annotation for one in models if part in one.model_fields]
        is_key = any(_holds_mapping(annotation) for annotation in annotations)  # the next part: the user's own
        models = [inner for annotation in annotations for inner in _models_in(annotation)]
    return models


def _names_of(model: type[Frozen]) -> tuple[str, ...]:
    """The tags that a union knows the model by."""
    field = model.model_fields.get("kind", model.model_fields.get("name"))
    return get_args(field.annotation) if field else ()


def _holds_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(map(_holds_mapping, get_args(annotation)))


def _models_in(annotation: Any) -> list[type[Frozen]]:
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


_TAGS = {
    *KINDS_BY_KEY.values(),
    *(tag for model in (NamedDataset, FolderDataset) for tag in get_args(model.model_fields["name"].annotation)),
    *get_args(OptimizerName),
    *get_args(SelectorName),
    *get_args(TaskName),
    *(*get_args(MethodName), "replay"),
    *get_args(LrScheduleKind),
}
_UNIONS = ("lr_set", "dataset", "task", "optimizer", "selector", "methods", "method", "lr_schedule")


def _path(loc: tuple[int | str, ...]) -> str:
    path, before = "", None
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        if before not in _UNIONS or part not in _TAGS:  # a tag stands right after its union, nowhere else
            path += f".{part}" if path else part
        before = part
    return path


def _shown(value: Any) -> Any:
    """The value as it goes into an error: JSON, and short."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:200] + "…"
    if value is None or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
