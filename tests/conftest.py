"""What the tests of every room may ask for."""

pytest_plugins = ["servers.plugin"]
