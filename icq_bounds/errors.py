"""Errors that end a command with one line; no JAX here, the command line catches them."""

from __future__ import annotations


class WorkError(RuntimeError):
    """Cells cannot be run, or some have no result; what is finished is kept."""


class FailedCells(WorkError):
    """Some cells had errors; the others are kept."""


class Interrupted(KeyboardInterrupt):
    """Stopped from outside; the message says what is kept and how to go on."""


class Violated(WorkError):
    """A bound or a certificate is violated by what was observed; everything is written."""
