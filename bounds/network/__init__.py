"""Networks bounded before they are run, along their own path (docs/theory.md section 5e)."""
