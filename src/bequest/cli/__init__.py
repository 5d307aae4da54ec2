"""The command line: one file per command, and what they share."""

from bequest.cli.app import app, main

__all__ = ["app", "main"]
