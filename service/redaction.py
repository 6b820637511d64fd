"""No secret gets into a log: tickets, report tokens, API keys, session cookies, passwords."""

import re

REDACTED = "[redacted]"
NAMES = r"ticket|token|secret|password|passwd|authorization|api_?key"
SECRETS = re.compile(
    r"(?<=frn_[0-9a-f]{12}_)[A-Za-z0-9_-]+"  # API keys; what goes before is shown everywhere
    r"|(?<=whsec_)[A-Za-z0-9+/=_-]+"  # of webhooks
    r"|(?i:(?<=bearer )[^\s'\",]+|(?<=forerun_session=)[^\s'\",;]+)"
    r"|(?<=://)[^\s/@]*:[^\s/@]*(?=@)"  # user and password in a URL
)
NAMED = re.compile(
    rf"(?i)(?P<name>[\w-]*(?:{NAMES})[\"']?\s*[:=]\s*)(?P<quote>[\"']?)(?P<scheme>(?:bearer|basic) )?[^\s\"',;&}}]+"
)
SECRET_NAME = re.compile(rf"(?i)[\w-]*(?:{NAMES})")


def redacted(text: str) -> str:
    """The text without secrets, by what they look like, and by the names that they stand behind."""
    return NAMED.sub(rf"\g<name>\g<quote>\g<scheme>{REDACTED}", SECRETS.sub(REDACTED, text))


def is_secret_name(name: str) -> bool:
    """Whether what has this name is a secret, whatever it looks like."""
    return SECRET_NAME.fullmatch(name) is not None
