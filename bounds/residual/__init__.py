"""The mixing residual over time (docs/theory.md sections 5, 5a and 5b)."""
