"""Complete example pipelines, shipped in the package."""
