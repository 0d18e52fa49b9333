"""Function-approximation error and certificates of tables (docs/theory.md section 4)."""
