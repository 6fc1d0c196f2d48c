"""Which addresses requests may be sent to."""

import re
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


BASE_URI_PATTERN = re.compile(r"[A-Za-z0-9\-._~:/@!$&'()*+,;=%\[\]]+")
"""Characters of a base URI (RFC 3986), without `?` and `#` because a path is appended to it."""


VISIBLE_ASCII = re.compile(r"[!-~]+")


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
