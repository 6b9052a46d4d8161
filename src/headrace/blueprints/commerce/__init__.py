"""An online shop's events."""

PROJECT_FILES = {
    "README.md": "README.md",
    "pipeline.py": "pipeline.py",
    "headrace.toml": "headrace.toml",
    "deploy/compose.yaml": "deploy/compose.yaml",
    "tests/test_commerce.py": "tests/test_commerce.py",
    "pytest.ini": "pytest.ini",
    "gitignore": ".gitignore",
    "github/workflows/ci.yml": ".github/workflows/ci.yml",
}
"""What a user's project gets, by the file's place in this package."""
