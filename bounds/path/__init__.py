"""Bounds that follow the population path of a run (docs/theory.md section 5d)."""
