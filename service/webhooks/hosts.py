"""Where webhooks may lead: to hosts that a setting names, and to no private address that it does not name.

A webhook has the service send requests to wherever a user says, from inside the operator's network (server-side request
forgery). So hosts are allow-listed; what a name resolves to is checked as well, for whoever owns the name may have it
point inside; and the checked address is the one that is connected to, so that it cannot become another in between.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self
from urllib.parse import SplitResult, urlsplit

MAX_URL = 1000
PORTS = {"https": 443, "http": 80}
NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class AllowedHosts:
    """The hosts of a setting: scheme, host and port of each, and the addresses among the hosts."""

    places: frozenset[tuple[str, str, int]] = frozenset()
    addresses: frozenset[IPv4Address | IPv6Address] = field(default=frozenset())

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """The hosts that these entries name: `hooks.example.com`, `hooks.example.com:8443`, or with `http://` in
        front where that is to be allowed. Raises ValueError for what is no such entry."""
        places = {_place(urlsplit(entry if "://" in entry else f"https://{entry}")) for entry in entries}
        hosts = [_address(host) for _, host, _ in places]
        return cls(frozenset(places), frozenset(host for host in hosts if host is not None))

    def problem_with(self, url: str) -> str | None:
        """What is wrong with the URL of a webhook, and what to do about it; None when nothing is."""
        if not self.places:
            return (
                "webhooks are switched off here; set FORERUN_WEBHOOK_HOSTS to the names of the hosts they may lead to"
            )
        if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            return f"must be a URL of at most {MAX_URL} characters, all of them printable ASCII"
        try:
            parts = urlsplit(url)
            place = _place(parts, bare=False)
        except ValueError as error:
            return str(error)
        if place not in self.places:
            return f"{parts.scheme}://{parts.netloc} is not among the hosts in FORERUN_WEBHOOK_HOSTS"
        return None

    def permits(self, address: str) -> bool:
        """Whether a connection to this IP address may be made: it is public, or the setting names it."""
        known = _address(address)
        return known is not None and (known in self.addresses or _is_public(known))


def _place(parts: SplitResult, *, bare: bool = True) -> tuple[str, str, int]:
    """Scheme, host and port of a URL. Raises ValueError where it has none, or, if `bare`, where it has more."""
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("must be a URL like https://hooks.example.com/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user or a password: they would be shown")
    if parts.fragment or (bare and (parts.path.strip("/") or parts.query)):
        raise ValueError("must be a host alone, like hooks.example.com" if bare else "must not have a fragment")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("must have a port from 1 to 65535, or none") from None
    if port == 0:
        raise ValueError("must have a port from 1 to 65535, or none")
    return parts.scheme, parts.hostname.lower(), port or PORTS[parts.scheme]


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet's, and does not stand for one that is not."""
    if address in NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return True
    inside = address.ipv4_mapped or address.sixtofour
    return address.teredo is None and (inside is None or _is_public(inside))
