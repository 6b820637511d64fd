"""The command line `forerun`."""

from forerun.cli.main import app
from forerun.cli.spec_file import EXAMPLE, read_spec

__all__ = ["EXAMPLE", "app", "read_spec"]
