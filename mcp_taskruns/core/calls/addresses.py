"""Which addresses requests may be sent to."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


BASE_URI_PATTERN = re.compile(r"[A-Za-z0-9\-._~:/@!$&'()*+,;=%\[\]]+")
"""Characters of a base URI (RFC 3986), without `?` and `#` because a path is appended to it."""


_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)

_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
"""The last label of a host that is an IPv4 address in any of its forms: `127.1`, `2130706433`, `0x7f.0.0.1`."""

_UNICAST = IPv6Network("2000::/3")
"""The IPv6 addresses that are assigned for the Internet."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as an IPv6-only network sees them (RFC 6052)."""

_INTERNAL = tuple(map(ip_network, ("192.0.0.0/24", "168.63.129.16/32")))
"""Public addresses that lead to services of the machine's own network: of Oracle Cloud and of Azure."""


VISIBLE_ASCII = re.compile(r"[!-~]+")


@lru_cache(maxsize=64)
def is_usable_base_uri(uri: str) -> bool:
    """Return whether a base URI is valid, and either https or loopback."""
    return is_http_url(uri) and BASE_URI_PATTERN.fullmatch(uri) is not None and is_private_url(uri)


def is_http_url(uri: str) -> bool:
    """Return whether a URI is an http or https URL with a host and without a user name."""
    try:
        parts = urlsplit(uri)
        is_valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(is_valid) and parts.username is None


def is_private_url(uri: str) -> bool:
    """Return whether a request to the URI is encrypted or does not leave this machine."""
    return urlsplit(uri).scheme == "https" or is_loopback_url(uri)


def is_loopback_url(uri: str) -> bool:
    """Return whether a request to the URI does not leave this machine."""
    return urlsplit(uri).hostname in LOOPBACK


def may_be_public(uri: str) -> bool:
    """Return whether the host of a URL is a public IP address, or a name that has to be resolved first."""
    host = urlsplit(uri).hostname or ""
    if _is_ip_address(host):
        return is_public_address(host)
    if host in LOOPBACK or host.endswith(".localhost"):
        return False
    return _HOST_NAME.fullmatch(host) is not None and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])


def is_public_address(host: str) -> bool:
    """Return whether an IP address belongs to the Internet, and not to this machine, its network or its provider."""
    address = ip_address(host)
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in network for network in _INTERNAL)
    if address in _NAT64:
        return is_public_address(str(IPv4Address(int(address) & 0xFFFF_FFFF)))
    return address in _UNICAST and address.is_global and not _is_tunnel(address)


def _is_tunnel(address: IPv6Address) -> bool:
    """Return whether the address contains an IPv4 address to which the packets are sent."""
    return address.sixtofour is not None or address.teredo is not None


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
