"""Measured speed, beside what people use today.  `make bench` runs everything and writes docs/benchmarks.md."""
