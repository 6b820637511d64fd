import sys
from pathlib import Path

import pytest

from forerun.program import program


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (".venv/bin/forerun", ".venv/bin/forerun"),
        ("/my tools/forerun", "'/my tools/forerun'"),
        ("{on_path}/forerun", "forerun"),
        ("/usr/bin/pytest", "forerun"),  # from Python
    ],
)
def test_the_program_is_called_as_the_user_typed_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, shown: str
) -> None:
    (tmp_path / "forerun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [typed.format(on_path=tmp_path), "jobs"])
    assert program() == shown
