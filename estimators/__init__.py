"""What is measured: estimates with intervals, and the decomposition of a run."""
