"""The connection to the Hub: ask about a name, within seconds, with the token of the user."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

CONNECT_SECONDS = 3
ANSWER_SECONDS = 8
LOG_IN = "log in with `hf auth login`, set HF_TOKEN, or in Python pass token=..."
"""The ways to show the Hub who is asking."""
REFUSED = (401, 403)
"""HTTP's codes for a request of someone who is not known, or may not."""
MODEL_FILES = {"config.json", "modules.json"}
"""Either file marks a folder as a model's: the first one of transformers, the second of sentence-transformers."""
_token: ContextVar[str | None] = ContextVar("token", default=None)


@contextmanager
def using_token(token: str | None) -> Iterator[None]:
    """Send ``token`` with all requests to the Hub within this context [that of ``hf auth login``]."""
    before = _token.set(token)
    try:
        yield
    finally:
        _token.reset(before)


def current_token() -> str | None:
    """Return the token for requests to the Hub; None for that of ``hf auth login``."""
    return _token.get()


def ask_in_time(name: str, revision: str | None, kind: str) -> Any:
    """As :func:`ask`, but within ``ANSWER_SECONDS``: the lookup of a host name keeps no timeout of ours."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    # A daemon that is still waiting does not keep the program from ending.
    # A thread starts without the context of its maker, so it is told the token.
    token = current_token()
    threading.Thread(target=lambda: answers.put(ask(name, revision, kind, token)), daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return f"the Hub did not answer within {ANSWER_SECONDS} seconds."


def ask(name: str, revision: str | None, kind: str, token: str | None) -> Any:
    """Return the Hub's info of a repository, or a sentence that says why there is none."""
    from huggingface_hub import HfApi, errors

    # The info of a gated repository is public, its files are not: auth_check asks for these.
    api = HfApi(token=token)
    try:
        info = api.repo_info(name, revision=revision, repo_type=kind, timeout=CONNECT_SECONDS)
        if getattr(info, "gated", False):
            api.auth_check(name, repo_type=kind)
    except errors.HFValidationError:
        return "there is no such folder, and a Hub id reads OWNER/NAME."
    # Before the next one, of which it is a subclass.
    except errors.GatedRepoError:
        place = f"datasets/{name}" if kind == "dataset" else name
        return f"its authors ask for consent: accept at {api.endpoint}/{place}, then {LOG_IN}."
    except errors.RepositoryNotFoundError:
        return f"the Hub has no {kind} of that name; or it is private: then {LOG_IN}, as a user who may read it."
    except errors.RevisionNotFoundError:
        return f"it has no revision {revision!r} on the Hub."
    except errors.OfflineModeIsEnabled:
        return "it is not in the local cache, and HF_HUB_OFFLINE forbids downloads."
    except (OSError, errors.HTTPError) as fault:
        # Also for a repository that anybody may read, if the token is wrong.
        if getattr(getattr(fault, "response", None), "status_code", None) in REFUSED:
            return f"the Hub refuses the token: it is wrong, has expired, or may not read this {kind}. Again {LOG_IN}."
        # Some errors have no text, others a whole page.
        lines = str(fault).splitlines()
        return f"the Hub cannot be reached ({lines[0] if lines else type(fault).__name__})."

    file_names = {file.rfilename for file in info.siblings or ()}
    if kind == "model" and not file_names & MODEL_FILES:
        return "it holds no config.json on the Hub, so it is not a model that transformers reads."
    return info
