"""The loggers, writing into a text as they do into the log of the service, for as long as a test wants it."""

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.logs import Style, configure_logging


@contextmanager
def log_output(style: Style | None, level: str = "INFO", *, terminal: bool = False) -> Iterator[io.StringIO]:
    """Log in this style to what is entered with. `terminal`: it says that it is one."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])  # pytest's own
        patch.setattr(logging.root, "level", logging.root.level)
        patch.setattr(threading, "excepthook", threading.excepthook)
        configure_logging(level, style, stream)
        try:
            yield stream
        finally:
            logging.captureWarnings(False)
    logging.root.setLevel(logging.root.level)  # loggers remember what is enabled until it is set
