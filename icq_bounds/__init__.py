"""Learn handoff workflows with IC-Q, split their error in three, and hold each part beside its bound."""

from importlib.metadata import version

__version__ = version("icq-bounds")
