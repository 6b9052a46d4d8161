"""Replicas against the bare client of their target."""
