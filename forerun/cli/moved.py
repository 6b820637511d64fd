"""The names that commands had before they were grouped: each tells where its command is now, and exits with code 2."""

from collections.abc import Callable

import typer

from forerun.cli.shared import say
from forerun.program import program

MOVED = {
    **{name: f"job {name}" for name in "watch cancel logs".split()},
    **{
        name: f"results {name}"
        for name in (
            "lr-history schedule selector-replay trials comparison study ramp layers history recommendation".split()
        )
    },
}


def add_to(app: typer.Typer) -> None:
    """Add the old names to `app` as commands that take any arguments and are in no help."""
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    for old, new in MOVED.items():
        app.command(old, hidden=True, add_help_option=False, context_settings=anything)(_refusal(old, new))


def _refusal(old: str, new: str) -> Callable[[], None]:
    def refuse() -> None:
        say(f"forerun: `{old}` has moved: use `{program()} {new}`")
        raise typer.Exit(2)

    return refuse
