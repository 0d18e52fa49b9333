"""Warnings that a person should read; commands print them as lines."""


class Note(UserWarning):
    """A warning of this project."""
