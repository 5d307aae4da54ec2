"""The command line: one file per command, and what they share."""

from bequest.cli.app import main

__all__ = ["main"]
