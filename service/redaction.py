"""No secret of a request gets into a log."""

import logging
import re

# API keys, and whatever else stands in an Authorization or Cookie header
SECRETS = re.compile(
    r"(?<=frn_[0-9a-f]{12}_)[A-Za-z0-9_-]+|(?i:(?<=bearer )[^\s'\",]+|(?<=forerun_session=)[^\s'\",;]+)"
)
REDACTED = "[redacted]"


def redacted(text: str) -> str:
    """The text without the secret parts of API keys, report tokens and session cookies."""
    return SECRETS.sub(REDACTED, text)


class WithoutSecrets(logging.Formatter):
    """Formats records of a log, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redacted(super().format(record))
