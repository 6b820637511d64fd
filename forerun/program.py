"""How the user calls this program, for hints that can be typed as they stand."""

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """The word that calls this program: `forerun`, or the path as it was typed where the shell would not find this one
    by its name."""
    typed = sys.argv[0]
    return shlex.quote(typed) if Path(typed).name == "forerun" and shutil.which("forerun") != typed else "forerun"
