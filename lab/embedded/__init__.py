"""How the embedded weights were made, and are made again: ``python -m lab.embedded``."""
