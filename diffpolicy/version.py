"""Version of the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("diffpolicy")
except PackageNotFoundError:  # a source tree on the path
    __version__ = "not installed"
