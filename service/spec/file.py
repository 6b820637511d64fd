"""Specs in files, YAML or JSON, as the command line and the trainer without a service read them."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from service.spec.field_errors import unique_keys


def read_spec_file(file: Path) -> dict[str, Any]:
    """Read the mapping in a YAML or JSON file, as JSON would have it, unchecked as a spec. Raises ValueError, whose
    message names the file and what is wrong with it."""
    try:
        text = file.read_text(encoding="utf-8")
        # JSON is YAML but for details, such as tabs that indent
        if file.suffix == ".json":
            document = json.loads(text, object_pairs_hook=unique_keys)
        else:
            document = yaml.load(text, _Loader)  # noqa: S506 - it is safe
        document = json.loads(json.dumps(document))  # what YAML can say and JSON cannot fails here
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    except RecursionError:
        raise ValueError(f"{file} cannot be read: it is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file} must hold fields (model: lenet5, …); examples/digits.yaml is one that does")
    return document


class _Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 and JSON read them. PyYAML alone takes 5e-4 for a text, and 2024-01-01 for a date."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for gigabytes
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"the alias *{event.anchor} is not taken; write it out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands there twice; keep one of them", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern in {
    "null": r"null|~|",
    "bool": r"true|false",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), None)
