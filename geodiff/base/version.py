"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

#: What `pip install` calls this package; Python imports it as geodiff.
DISTRIBUTION = "geodiff"

try:
    VERSION = version(DISTRIBUTION)
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "unknown"
