"""New users, polled from an HTTP API, into Cassandra."""

PROJECT_FILES = {
    "README.md": "README.md",
    "pipeline.py": "pipeline.py",
    "users.py": "users.py",
    "headrace.toml": "headrace.toml",
    "airflow/dags/user_automation.py": "airflow/dags/user_automation.py",
    "deploy/compose.yaml": "deploy/compose.yaml",
    "tests/test_signups.py": "tests/test_signups.py",
    "pytest.ini": "pytest.ini",
    "gitignore": ".gitignore",
    "github/workflows/ci.yml": ".github/workflows/ci.yml",
}
"""What a user's project gets, by the file's place in this package."""
