"""The side of the service that speaks HTTP: its gate, bodies, replies and counters."""
