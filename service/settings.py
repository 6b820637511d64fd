"""The only reader of the environment. Every variable is named FORERUN_<FIELD>."""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from limits import parse
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL like http://host:8265")
    return url


def _sql_url(url: str) -> str:
    if url.partition("://")[0] not in ("sqlite", "postgresql", "postgresql+psycopg"):
        raise ValueError("must be a URL like sqlite:////folder/file.db or postgresql://user:password@host/database")
    return url


def _names(text: Any) -> Any:
    return [name.strip().lower() for name in text.split(",") if name.strip()] if isinstance(text, str) else text


def _rate(text: str) -> str:
    try:
        parse(text)
    except ValueError:
        raise ValueError("must be a rate like 100/second or 1000/minute") from None
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Auth = Literal["auto", "keys", "open"]
LogFormat = Literal["json", "text"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class Settings(BaseSettings):
    """The settings of the service, each read from the environment variable FORERUN_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="FORERUN_", env_file=None, frozen=True)

    home: Path = Field(Path(".forerun"), description="Where the service keeps its database and its jobs' files.")
    host: str = Field("127.0.0.1", description="Address to listen on; beyond this machine API keys are asked for.")
    auth: Auth = Field(
        "auto",
        description="Who is let in. keys: whoever has an API key; open: everybody, who may then do everything; auto: "
        "everybody on this machine while there never was a key, else whoever has one.",
    )
    key_rate: Annotated[str, AfterValidator(_rate)] = Field(
        "100/second", description="Requests that an API key may send, such as 100/second."
    )
    key_event_streams: int = Field(100, ge=1, description="Streams of events that an API key may follow at once.")
    owner_running_jobs: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Jobs of one owner that run at once; further ones wait. Default: any number."
    )
    owner_gpu_seconds: Annotated[int, Field(ge=1)] | None = Field(
        None, description="GPU-seconds of one owner in 24 hours; further jobs wait. Default: any number."
    )
    port: int = Field(8000, ge=1, le=65535, description="The next free one is taken when it is in use.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (), description="Names by which clients reach this service, beside localhost, `host` and that of `api_url`."
    )
    database_url: Annotated[str, AfterValidator(_sql_url)] | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in the home folder."
    )
    data_dir: Path = Field(Path("data"), description="Where datasets lie.")
    jobs_dir: Path | None = Field(
        None, description="Where jobs' files lie, the same for services that share a database; default: in the home."
    )
    api_url: HttpUrl | None = Field(None, description="How workers reach this service; default: host and port.")
    ray_address: HttpUrl | None = Field(
        None, description="Dashboard URL of an existing Ray cluster (http://host:8265); default: start a local head."
    )
    ray_token: SecretStr | None = Field(None, description="Token of the cluster at ray_address.")
    ray_python: str = Field("python", description="Python with Forerun installed, on the nodes of ray_address.")
    ray_num_cpus: Annotated[int, Field(ge=1)] | None = Field(None, description="CPUs of the local head; default: all.")
    ray_num_gpus: Annotated[int, Field(ge=0)] | None = Field(None, description="GPUs of the local head; default: all.")
    max_attempts: int = Field(
        3, ge=1, description="Ray jobs lost in a row for reasons of their own, without a new epoch, that end a job."
    )
    poll_seconds: float = Field(0.5, gt=0, description="How often the controller looks at Ray.")
    min_free_mb: int = Field(
        100, ge=0, description="MiB that must be free where the database and the jobs' files lie for /readyz to be 200."
    )
    hang_seconds: float = Field(
        300, gt=0, description="How long a training may not get on, or five times its slowest epoch, until it is ended."
    )
    max_connections: int = Field(
        2000, ge=10, description="Connections at a time; at most half of the file descriptors that the system allows."
    )
    max_event_streams: int = Field(
        1000, ge=1, description="Streams of events at a time; at most half of the connections."
    )
    header_seconds: float = Field(10, gt=0, description="How long the header of a request may take to arrive.")
    body_seconds: float = Field(30, gt=0, description="How long the body of a request may take to arrive.")
    keep_alive_seconds: int = Field(30, ge=1, description="How long a connection is kept for another request.")
    write_seconds: float = Field(60, gt=0, description="How long a client may leave its answer unread.")
    compute_seconds: float = Field(20, gt=0, description="How long a figure or a forecast may take to compute.")
    compute_processes: int = Field(2, ge=1, le=64, description="Figures and forecasts computed at a time.")
    keep_checkpoints_days: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Days after a job's end that its files are kept; default: for ever."
    )
    keep_logs_days: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Days after an attempt's end that its log is kept; default: for ever."
    )
    otlp_endpoint: HttpUrl | None = Field(
        None,
        description="Where traces are sent by OTLP over HTTP, such as http://127.0.0.1:4318; takes the extra tracing. "
        "Default: there are none.",
    )
    webhook_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (),
        description="Hosts that webhooks may lead to, such as hooks.example.com or http://10.0.0.7:8080. "
        "Default: none, which switches webhooks off.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(str.upper)] = "INFO"
    log_format: Annotated[LogFormat, BeforeValidator(str.lower)] | None = Field(
        None, description="json or text; default: text on a terminal, JSON elsewhere. Of jobs' logs: text."
    )

    def hosts(self) -> frozenset[str]:
        """The host names, in lower case, that requests may be addressed to: localhost, `host`, that of `api_url`, and
        `allowed_hosts`."""
        of_the_api = urlsplit(self.api_url or "").hostname or "localhost"
        return frozenset({"localhost", self.host.lower(), of_the_api, *self.allowed_hosts})

    def jobs(self) -> Path:
        """The folder of the jobs' files: `jobs_dir`, or one in the home folder."""
        return (self.jobs_dir or self.home / "jobs").absolute()

    def database(self) -> str:
        """The SQLAlchemy URL of the database: `database_url`, or SQLite in the home folder."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'forerun.db'}"


class WorkerSettings(BaseSettings):
    """What the controller hands a Ray job by its environment. The ticket, which Ray logs, buys one Assignment and is
    then worthless."""

    model_config = SettingsConfigDict(env_prefix="FORERUN_", env_file=None, frozen=True)

    api_url: str
    ticket: SecretStr
    data_dir: Path
    storage_dir: Path
    log_format: LogFormat = "text"  # a job's log is read by its user
