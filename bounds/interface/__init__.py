"""The interface representation gap (docs/theory.md section 3)."""
