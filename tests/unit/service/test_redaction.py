import pytest

from service.redaction import is_secret_name, redacted

KEY = "frn_3f9c0a51d2e8_" + 43 * "x"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"key {KEY}, and", "key frn_3f9c0a51d2e8_[redacted], and"),
        (f"{{'Authorization': 'Bearer {KEY}'}}", "{'Authorization': 'Bearer [redacted]'}"),
        ("authorization: bearer abc.def-_", "authorization: bearer [redacted]"),
        ("Cookie: a=b; forerun_session=abc_-; c=d", "Cookie: a=b; forerun_session=[redacted]; c=d"),
        ("postgresql://forerun:pa=s:s@db/forerun", "postgresql://[redacted]@db/forerun"),
        ("connection to postgresql://db/forerun failed", "connection to postgresql://db/forerun failed"),
        ("host=db user=u password=s3cret dbname=x", "host=db user=u password=[redacted] dbname=x"),
        ("{'FORERUN_TICKET': 'abc-_', 'X': 'http://api'}", "{'FORERUN_TICKET': '[redacted]', 'X': 'http://api'}"),
        ('{"ticket": "abc-_"}', '{"ticket": "[redacted]"}'),
        ('"report_token":"abc","attempt":1', '"report_token":"[redacted]","attempt":1'),
        ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_[redacted]"),
        ("this report token is not that of the live attempt", "this report token is not that of the live attempt"),
        ("nothing of the kind", "nothing of the kind"),
    ],
)
def test_secrets_are_taken_out_and_what_is_around_them_stays(text: str, kept: str) -> None:
    assert redacted(text) == kept


def test_names_of_secrets() -> None:
    for name in ("ticket", "report_token", "FORERUN_RAY_TOKEN", "Authorization", "api_key", "password"):
        assert is_secret_name(name)
    for name in ("job", "attempt", "event", "request_id", "token_file", "logger"):
        assert not is_secret_name(name)
