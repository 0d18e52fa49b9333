"""Four agents write one program for a small register machine."""
