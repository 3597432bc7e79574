"""A server that says when it is ready."""

from __future__ import annotations

import socket

import uvicorn


class TellingServer(uvicorn.Server):
    """A server that says when requests are taken."""

    def __init__(self, config: uvicorn.Config, name: str) -> None:
        super().__init__(config)
        self._name = name

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the address."""
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        print(f"ready: {self._name} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
