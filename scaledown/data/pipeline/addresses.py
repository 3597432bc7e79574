"""Servers given by flags: their URLs, which are saved and so must hold no secret, and the keys of the environment."""

from __future__ import annotations

from urllib.parse import urlsplit

OPENAI_KEY = "OPENAI_API_KEY"
QDRANT_KEY = "QDRANT_API_KEY"
"""The environment variables with a server's key: the teacher's, and the index's."""


def url_faults(flag: str, url: str, example: str, key: str) -> list[str]:
    """Return the faults of ``url``, the value of ``flag``.

    Args:
        flag: the flag, for messages.
        url: the URL to check.
        example: a URL that would be right.
        key: the environment variable for the server's key.
    """
    # A login or query may hold a secret, so this message does not repeat the URL.
    if "@" in url or "?" in url:
        return [f"{flag} must hold no login and no query (?...), which would be written down with the settings; give "
                f"the key in the environment, {key}"]

    # urlsplit drops line breaks, and refuses some malformed hosts; a port is only looked at when it is asked for.
    has_gaps = any(character.isspace() or not character.isprintable() for character in url)
    try:
        address = urlsplit(url)
        is_web = bool(address.hostname) and address.scheme in ("http", "https") and address.port != 0 and not has_gaps
    except ValueError:
        is_web = False
    return [] if is_web else [f"{flag} must look like {example}, got {url!r}"]
