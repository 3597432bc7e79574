"""Commands for a service: what can be done before any question comes."""
