"""Logs, clicks and transactions of a company, into PostgreSQL."""

PROJECT_FILES = {
    "README.md": "README.md",
    "pipeline.py": "pipeline.py",
    "headrace.toml": "headrace.toml",
    "sql/init.sql": "sql/init.sql",
    "sql/views.sql": "sql/views.sql",
    "deploy/compose.yaml": "deploy/compose.yaml",
    "grafana/operations.json": "grafana/operations.json",
    "tests/test_operations.py": "tests/test_operations.py",
    "pytest.ini": "pytest.ini",
    "gitignore": ".gitignore",
    "github/workflows/ci.yml": ".github/workflows/ci.yml",
}
"""What a user's project gets, by the file's place in this package."""
