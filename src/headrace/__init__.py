"""Real-time data pipelines, declared once in Python and SQL."""
