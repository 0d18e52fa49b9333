"""The only join of estimates and bounds, and the only input and output."""
