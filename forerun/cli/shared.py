"""What the commands share: arguments, formats, and where their output goes."""

import json
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from typer.core import TyperGroup

from forerun.client import DEFAULT_URL, Client
from forerun.display.text import clean
from forerun.program import program
from service.wire.answers import Answer

Shown = TypeVar("Shown", bound=Answer | Iterable[Answer])

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as `forerun jobs` lists it.")]
SpecFile = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A job spec, in YAML or JSON.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Priority = Annotated[
    int | None, typer.Option(min=-100, max=100, help="From -100 to 100; of jobs that wait higher ones begin first.")
]
TimeLimit = Annotated[
    int | None, typer.Option(min=1, help="Seconds that the job may run; then it fails, and its checkpoints are kept.")
]
Output = Annotated[Path | None, typer.Option(dir_okay=False, help="Write to this file instead of standard output.")]


class HistoryFormat(StrEnum):
    """The formats in which a history of learning rates can be printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class FileFormat(StrEnum):
    """The formats in which a result can be printed or written to a file."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PNG = "png"
    SVG = "svg"


class TextFormat(StrEnum):
    """The formats in which an explanation can be printed or written to a file."""

    TEXT = "text"
    JSON = "json"
    PNG = "png"
    SVG = "svg"


def new_group(about: str, cls: type[TyperGroup] = TyperGroup, *, add_completion: bool = False) -> typer.Typer:
    """Make a group of commands, which prints its help when it is called alone. `about` is the first line of that
    help."""
    return typer.Typer(
        cls=cls,
        no_args_is_help=True,
        add_completion=add_completion,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        help=about,
    )


def example(*commands: str) -> str:
    """The last lines of a command's help: how `commands` are typed, one a line."""
    return "\n".join(["Example:" if len(commands) == 1 else "Examples:", *(f"forerun {one}" for one in commands)])


def client_of(ctx: typer.Context) -> Client:
    """The client of the service that the options before the command name."""
    client: Client = ctx.obj
    return client


def command_line(ctx: typer.Context, *words: str) -> str:
    """What to type to run the command `words` against the same service, its URL included where that is not the
    default."""
    url = client_of(ctx).base_url
    return " ".join([program(), *([] if url == DEFAULT_URL else ["--url", url]), *words])


def console() -> Console:
    """The terminal to print to, for text that is shown as it is, without markup."""
    return Console(highlight=False, markup=False)


def export(
    format_: FileFormat | TextFormat,
    output: Path | None,
    answer: Callable[[], Shown],
    text: Callable[[Shown], str],
    file: Callable[[str], str | bytes],
) -> None:
    """Print what the service answered as a table or other `text`, or as JSON, or write the `file` of that format, to
    `output` or to standard output."""
    if output is None and format_.value == "png" and sys.stdout.isatty():
        raise typer.BadParameter("a terminal cannot show a PNG; name a file", param_hint="--output")
    match format_:
        case FileFormat.TABLE | TextFormat.TEXT:
            _write(text(answer()) + "\n", output)
        case FileFormat.JSON | TextFormat.JSON:
            _write(json.dumps(as_document(answer()), indent=2) + "\n", output)
        case _:
            _write(file(format_.value), output)


def _write(content: str | bytes, output: Path | None) -> None:
    """Write the content to the file `output`, or where that is None to standard output."""
    raw = content.encode() if isinstance(content, str) else content
    if output is None:
        typer.echo(raw, nl=False)
        return
    try:
        output.write_bytes(raw)
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error}", param_hint="--output") from None
    say(f"Written to {output}")


def print_json(value: BaseModel | Iterable[BaseModel]) -> None:
    """Print what the service sent to standard output, as indented JSON."""
    typer.echo(json.dumps(as_document(value), indent=2))


def as_document(value: BaseModel | Iterable[BaseModel]) -> Any:
    """What the service sent, as plain values that JSON can hold."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    return [as_document(item) for item in value]


def say(text: str) -> None:
    """Print a hint or an error to standard error, without characters that could command the terminal."""
    typer.echo(clean(text), err=True)
