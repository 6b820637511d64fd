"""The log: each event on a line of its own, as JSON or as text, with what it belongs to and without secrets.

Whoever logs does so by the standard library's `logging`; so do uvicorn, Alembic and the clients of Ray, and all come
out alike. What an event belongs to (`request_id`, `job`, `attempt`) is bound by `structlog.contextvars` for a while,
and stands in every event meanwhile.
"""

import logging
import sys
import threading
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from service.redaction import REDACTED, is_secret_name, redacted

Style = Literal["json", "text"]

FIRST = ("timestamp", "level", "logger", "event")  # of an event as text; what else it has follows as name=value
BLOCK = ("exception", "stack")  # take several lines as text, each of them indented


def configure_logging(level: str, style: Style | None = None, stream: TextIO | None = None) -> None:
    """Have this process log to `stream`, by default standard error, in place of whatever it logged to before.

    Without a style it is text on a terminal, and JSON elsewhere, where programs read it.
    """
    stream = stream or sys.stderr
    style = style or ("text" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(style))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # each request is an INFO to it
    threading.excepthook = _thread_ended


def formatter(style: Style) -> logging.Formatter:
    """What makes lines of events in this style."""
    render = structlog.processors.JSONRenderer() if style == "json" else _as_text
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _without_secrets, render],
    )


def _without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: REDACTED if is_secret_name(name) else redacted(str(value)) for name, value in event.items()}


def _as_text(_: WrappedLogger, __: str, event: EventDict) -> str:
    """An event as a line, and the traceback on lines behind it. Control characters are escaped: what a user wrote can
    neither begin a line that looks like an event nor move a terminal's cursor."""
    first = " ".join(printable(event[name]) for name in FIRST if name in event)
    more = "".join(f"  {name}={printable(value)}" for name, value in sorted(event.items()) if name not in FIRST + BLOCK)
    lines = [line for name in BLOCK for line in event.get(name, "").split("\n") if line]
    return "\n".join([first + more, *(f"    {printable(line)}" for line in lines)])


def printable(text: str) -> str:
    """The text with control characters and line ends escaped, as in a literal of Python."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _thread_ended(arguments: Any) -> None:
    """Log an exception that has ended a thread, which Python would print as it is."""
    if arguments.exc_type is not SystemExit:
        name = arguments.thread.name if arguments.thread else "unknown"
        error = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        logging.getLogger("forerun").error("the thread %s has ended", name, exc_info=error)
