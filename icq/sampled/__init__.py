"""Workflows that can only be sampled: environments, IC-Q on many copies of one, views for other libraries."""
