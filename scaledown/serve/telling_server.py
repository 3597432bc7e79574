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
        """Start, and print the address.

        Raises:
            ValueError: if another program listens there.
        """
        [place] = sockets or []
        host, port = place.getsockname()[:2]
        try:
            place.listen(self.config.backlog)
        except OSError as fault:
            # Two programs may bind an address while neither listens yet.
            raise ValueError(f"--host {host} --port {port}: cannot listen there ({fault.strerror or fault})") from None

        await super().startup(sockets)
        print(f"ready: {self._name} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
