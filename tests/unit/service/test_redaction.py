import logging

from service.redaction import WithoutSecrets, redacted

KEY = "frn_3f9c0a51d2e8_" + 43 * "x"


def test_secrets_are_taken_out_and_their_prefix_stays() -> None:
    for text, kept in [
        (f"key {KEY}, and", "key frn_3f9c0a51d2e8_[redacted], and"),
        (f"{{'Authorization': 'Bearer {KEY}'}}", "{'Authorization': 'Bearer [redacted]'}"),
        ("authorization: bearer abc.def-_", "authorization: bearer [redacted]"),
        ("Cookie: a=b; forerun_session=abc_-; c=d", "Cookie: a=b; forerun_session=[redacted]; c=d"),
        ("nothing of the kind", "nothing of the kind"),
    ]:
        assert redacted(text) == kept


def test_of_a_log_tracebacks_too() -> None:
    try:
        raise ValueError(KEY)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "of %s", (KEY,), (ValueError, error, None))
    told = WithoutSecrets().format(record)
    assert told.count("[redacted]") == 2
    assert "xxx" not in told
