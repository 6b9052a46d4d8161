"""From a folder to a running pipeline."""
