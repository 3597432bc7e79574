"""What comes in and goes out over HTTP: who is let in, bodies, replies, counters."""
