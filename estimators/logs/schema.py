"""The names of the handoff log format (docs/logs.md).

Standard library only: the recorder imports this inside other people's agent loops.
"""

from __future__ import annotations

SCHEMA = "icq-handoffs/1"
REQUIRED = (
    "task", "k", "agent", "observation", "option", "reward", "duration", "done", "next_agent", "next_observation",
)  # fmt: skip
OPTIONAL = ("scalar", "context", "probability", "chain")
COLUMNS = REQUIRED + OPTIONAL
IDS = ("task", "agent", "observation", "option", "next_agent", "next_observation", "context", "chain")


class LogError(ValueError):
    """A log that breaks the format; the message names the row or line, the column and the value."""


def check_gamma(gamma: object) -> float:
    """Gamma as a float inside (0, 1).  Raises LogError."""
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 < gamma < 1:
        raise LogError(f"gamma = {gamma!r}: a number inside (0, 1) is needed")
    return float(gamma)
