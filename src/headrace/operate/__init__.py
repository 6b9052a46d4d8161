"""From a folder to a running pipeline."""

from headrace.operate.client import StoreClient, connect, running_process
from headrace.operate.profiles import Profile, read_profile
from headrace.operate.project import Home, Project, find_home, load_pipeline, load_project
from headrace.operate.runtime import Runtime, open_log
from headrace.operate.secrets import Secret

__all__ = [
    "Home",
    "Profile",
    "Project",
    "Runtime",
    "Secret",
    "StoreClient",
    "connect",
    "find_home",
    "load_pipeline",
    "load_project",
    "open_log",
    "read_profile",
    "running_process",
]
