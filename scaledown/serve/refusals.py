"""Requests that are refused: an HTTP status with one sentence, in the form of OpenAI's errors."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's words for a kind of error, by status."""
SHOWN_NAME_CHARACTERS = 80


class Refusal(Exception):
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        message: one sentence: what was expected, and what to do.
        param: the field at fault, if there is one.
        code: a word for programs, if there is one.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """Return the JSON that OpenAI's clients read."""
        if self.status >= 500:
            kind = "server_error"
        else:
            kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the whole response."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        elif self.status == 429:
            # Seconds: a batch takes less.
            headers["Retry-After"] = "1"
        return JSONResponse(self.body(), self.status, headers)


def of_validation(fault: ValidationError) -> Refusal:
    """Return the refusal of a body that is no JSON (400), or has a wrong field (422): the first one, in a sentence."""
    first = fault.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Refusal(400, f"the body is no JSON: {first['ctx']['error']}", code="invalid_json")

    # A validator's own sentence comes behind these words.
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    place = ".".join(map(str, first["loc"]))[:SHOWN_NAME_CHARACTERS] or None
    if first["type"] == "extra_forbidden":
        message = "no field of this service; leave it out"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "too_short":
        message = "must not be empty: the service answers from documents"
    return Refusal(422, f"{place}: {message}" if place else message, place)
