"""Where webhooks may lead."""

import pytest

from service.webhooks.hosts import AllowedHosts

ALLOWED = AllowedHosts.parse(
    ["hooks.example.com", "https://other.example.com:8443", "http://127.0.0.1:9000", "10.0.0.7", "[fd00::7]"]
)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://HOOKS.example.com:443/a/path?with=query",
        "https://other.example.com:8443/",
        "http://127.0.0.1:9000/x",
        "https://10.0.0.7/",
        "https://[fd00::7]/",
    ],
)
def test_urls_on_allowed_hosts(url: str) -> None:
    assert ALLOWED.problem_with(url) is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://evil.example.com/", "https://evil.example.com is not among the hosts in FORERUN_WEBHOOK_HOSTS"),
        ("http://hooks.example.com/", "is not among"),  # named without http://
        ("https://hooks.example.com:8443/", "is not among"),
        ("https://other.example.com/", "is not among"),
        ("https://hooks.example.com.evil.example/", "is not among"),
        ("https://hooks.example.com./", "is not among"),
        ("http://127.1:9000/", "is not among"),
        ("http://2130706433:9000/", "is not among"),
        ("http://[::ffff:127.0.0.1]:9000/", "is not among"),
        ("http://localhost:9000/", "is not among"),
        ("https://user:pw@hooks.example.com/", "must not have a user or a password"),
        ("https://user@hooks.example.com/", "must not have a user or a password"),
        ("https://hooks.example.com@evil.example/", "must not have a user or a password"),
        ("https://evil.example\\@hooks.example.com/", "printable ASCII"),
        ("https://hooks.example.com/#x", "must not have a fragment"),
        ("https://hooks.example.com:0/", "must have a port"),
        ("https://hooks.example.com:99999/", "must have a port"),
        ("ftp://hooks.example.com/", "must be a URL like"),
        ("hooks.example.com", "must be a URL like"),
        ("https:///x", "must be a URL like"),
        ("https://[::1", "Invalid IPv6 URL"),
        ("https://hooks.example.com/a b", "printable ASCII"),
        ("https://hooks.example.com/\r\nX: y", "printable ASCII"),
        ("https://hööks.example.com/", "printable ASCII"),
        ("https://hooks.example.com/" + 1000 * "x", "at most 1000 characters"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    problem = ALLOWED.problem_with(url)
    assert problem is not None
    assert message in problem


def test_without_hosts_webhooks_are_switched_off() -> None:
    problem = AllowedHosts.parse([]).problem_with("https://hooks.example.com/")
    assert problem is not None
    assert "set FORERUN_WEBHOOK_HOSTS" in problem


@pytest.mark.parametrize("entry", ["ftp://h", "https://h/path", "user@h", "h:99999", "https://", "h?x"])
def test_an_entry_that_names_no_host(entry: str) -> None:
    with pytest.raises(ValueError, match="must"):
        AllowedHosts.parse([entry])


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "127.0.0.1", "10.0.0.7", "fd00::7", "64:ff9b::808:808"]
)
def test_addresses_that_are_public_or_named(address: str) -> None:
    assert ALLOWED.permits(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.2", "10.0.0.8", "172.16.0.1", "192.168.0.1", "100.64.0.1", "0.0.0.0", "255.255.255.255"),
        *("169.254.169.254", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *(
            "::1",
            "::",
            "fe80::1",
            "fe80::1%eth0",
            "fd00::8",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
        ),
        *(
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "no address",
        ),
    ],
)
def test_addresses_that_are_neither(address: str) -> None:
    assert not ALLOWED.permits(address)
