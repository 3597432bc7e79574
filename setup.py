"""For tools that look for a setup.py: everything is said in pyproject.toml."""
from setuptools import setup

if __name__ == "__main__":
    setup()
