"""Addresses of servers, as flags give them: a secret in one would be written down with the run's settings."""

from __future__ import annotations

from urllib.parse import urlsplit


def url_faults(flag: str, url: str, example: str, key: str) -> list[str]:
    """What is wrong with ``url``, the value of ``flag``; one that may hold a secret is not repeated.

    Args:
        example: what it should look like.
        key: the environment variable that holds the server's key.
    """
    if "@" in url or "?" in url:
        return [f"{flag} must hold no login and no query (?...), which would be written down with the settings; give "
                f"the key in the environment, {key}"]
    try:
        parts = urlsplit(url)
        is_web = bool(parts.hostname) and parts.scheme in ("http", "https")
    except ValueError:
        is_web = False
    return [] if is_web else [f"{flag} must look like {example}, got {url!r}"]
