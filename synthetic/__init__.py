"""Families of IC-SMDPs and workflows."""
