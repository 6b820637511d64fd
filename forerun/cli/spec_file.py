"""Specs in files, as arguments of commands."""

from pathlib import Path
from typing import Any

import typer

from service.spec.file import read_spec_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"


def read_spec(file: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, as JSON would have it. Raises typer.BadParameter, which says why not."""
    try:
        return read_spec_file(file)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from None
