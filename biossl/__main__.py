"""python -m biossl."""

from biossl.cli import entry

entry()
