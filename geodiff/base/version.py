"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

from geodiff.base.package_name import DISTRIBUTION

try:
    VERSION = version(DISTRIBUTION)
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "unknown"
