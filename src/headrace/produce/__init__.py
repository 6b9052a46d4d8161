"""Producers: everything that appends to a log."""
