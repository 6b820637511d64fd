from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, WorkerSettings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for field in (*Settings.model_fields, *WorkerSettings.model_fields):
        monkeypatch.delenv(f"FORERUN_{field.upper()}", raising=False)


def test_without_an_environment_the_database_lies_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Settings().database() == f"sqlite:///{tmp_path}/.forerun/forerun.db"
    monkeypatch.setenv("FORERUN_HOME", "/srv/forerun")
    assert Settings().database() == "sqlite:////srv/forerun/forerun.db"
    monkeypatch.setenv("FORERUN_DATABASE_URL", "postgresql://db/forerun")
    assert Settings().database() == "postgresql://db/forerun"


def test_the_files_of_jobs_lie_in_the_home_or_where_several_services_share_them(monkeypatch):
    monkeypatch.setenv("FORERUN_HOME", "/srv/forerun")
    assert Settings().jobs() == Path("/srv/forerun/jobs")
    monkeypatch.setenv("FORERUN_JOBS_DIR", "/shared/jobs")
    assert Settings().jobs() == Path("/shared/jobs")


def test_every_setting_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("FORERUN_PORT", "8001")
    monkeypatch.setenv("FORERUN_DATA_DIR", "/data")
    monkeypatch.setenv("FORERUN_RAY_NUM_GPUS", "0")
    settings = Settings()
    assert (settings.port, settings.data_dir, settings.ray_num_gpus) == (8001, Path("/data"), 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PORT", "0"), ("PORT", "65536"), ("PORT", "http"), ("MAX_ATTEMPTS", "0"), ("RAY_NUM_CPUS", "0")),
        *(("RAY_ADDRESS", "ray-head:8265"), ("RAY_ADDRESS", "ray://head:10001"), ("API_URL", "http://")),
        *(("DATABASE_URL", "mysql://db/forerun"), ("DATABASE_URL", "forerun.db"), ("LOG_LEVEL", "loud")),
    ],
)
def test_a_wrong_setting_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"FORERUN_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_hosts_are_localhost_the_address_to_listen_on_that_of_the_api_and_those_allowed(monkeypatch):
    assert Settings().hosts() == {"localhost", "127.0.0.1"}
    monkeypatch.setenv("FORERUN_HOST", "Box.example")
    monkeypatch.setenv("FORERUN_API_URL", "http://api:8000")
    monkeypatch.setenv("FORERUN_ALLOWED_HOSTS", "forerun.example, Other ,")
    assert Settings().hosts() == {"localhost", "box.example", "api", "forerun.example", "other"}


def test_the_log_level_may_be_in_lower_case(monkeypatch):
    monkeypatch.setenv("FORERUN_LOG_LEVEL", "debug")
    assert Settings().log_level == "DEBUG"


def test_secrets_are_not_shown(monkeypatch):
    monkeypatch.setenv("FORERUN_RAY_TOKEN", "s3cret")
    monkeypatch.setenv("FORERUN_TICKET", "s3cret")
    for name in ("API_URL", "DATA_DIR", "STORAGE_DIR"):
        monkeypatch.setenv(f"FORERUN_{name}", "http://x")
    assert "s3cret" not in repr(Settings()) + repr(WorkerSettings())
    assert Settings().ray_token.get_secret_value() == WorkerSettings().ticket.get_secret_value() == "s3cret"
