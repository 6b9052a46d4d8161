"""The log: append and read."""
