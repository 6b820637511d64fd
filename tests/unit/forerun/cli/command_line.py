"""The command line over a scripted service."""

from functools import partial

import pytest
from typer.testing import CliRunner, Result

from forerun.cli import app
from forerun.client import Client
from tests.unit.forerun.service_double import Script, Step

SPEC = {"model": "lenet5", "dataset": "digits", "epochs": 3, "lr_set": "middle"}


class Forerun:
    """The command line, over a scripted service."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.script = Script()

    def __call__(self, *words: str, answers: list[Step] | None = None, env: dict[str, str] | None = None) -> Result:
        self.script = Script(*(answers or []))
        self._patch.setattr("forerun.cli.main.Client", partial(Client, transport=self.script))
        return CliRunner().invoke(app, words, env=env)
