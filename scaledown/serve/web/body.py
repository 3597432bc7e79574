"""The body of a request, read up to a limit of bytes and seconds, as one of the forms."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from scaledown.serve.limits import MEBIBYTE, Limits
from scaledown.serve.refusals import Refusal, of_validation
from scaledown.serve.web.forms import StrictForm

BODY_SECONDS = 30.0
"""A client that sends its body more slowly is refused: it keeps a place among the open requests."""
AnyForm = TypeVar("AnyForm", bound=StrictForm)


async def read_form(request: Request, kind: type[AnyForm], limits: Limits) -> AnyForm:
    """Return the body of ``request`` as a form of ``kind``.

    Raises:
        Refusal: if it is too long or too slow, no JSON, or has a wrong field.
    """
    # A web page can make a browser send other types to this machine, but not this one without asking first.
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "the body must be JSON, with the header Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read(request, limits)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise Refusal(499, "the client has hung up") from None

    try:
        return kind.model_validate_json(body)
    except ValidationError as fault:
        raise of_validation(fault) from None


async def _read(request: Request, limits: Limits) -> bytes:
    """Return the body, of which never more than the limit is held, whatever its length is said to be."""
    too_long = Refusal(413, f"the body is longer than {limits.max_body_bytes / MEBIBYTE:g} MiB; send fewer or shorter "
                            "documents", code="body_too_long")
    said = request.headers.get("content-length", "0")
    # Compared by their number of digits first: a number may be too long to be read.
    if said.isdecimal() and (len(said) > 15 or int(said) > limits.max_body_bytes):
        raise too_long

    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limits.max_body_bytes:
            raise too_long
    return bytes(body)
