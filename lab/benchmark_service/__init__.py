"""A load test of the HTTP service: what is sent, who sends it, and the processes that answer."""
