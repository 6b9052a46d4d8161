"""An online shop's events."""
