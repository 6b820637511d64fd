from pathlib import Path

import pytest

from tests.unit.forerun.cli.command_line import Forerun


@pytest.fixture
def forerun(monkeypatch: pytest.MonkeyPatch) -> Forerun:
    for name in ("FORERUN_URL", "FORERUN_API_KEY", "FORERUN_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return Forerun(monkeypatch)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text("model: lenet5\ndataset: digits\nepochs: 3\nlr_set: middle\n")
    return path
