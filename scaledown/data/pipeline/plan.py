"""The plan."""


def tell_plan(config):
    """."""
