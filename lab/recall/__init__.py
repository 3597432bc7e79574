"""Recall by words, by vectors, and by both together."""
