"""Handoff logs: in memory, recorded, read, written and simulated (docs/logs.md)."""
