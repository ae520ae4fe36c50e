"""What everything else stands on: argument checks, errors, files, and the posterior in summary.

Imports nothing of geodiff; every other folder may import from here.
"""

from geodiff.base.package_name import warn_of_other_project

# Here and not in geodiff/__init__.py, which the other project replaces when it is installed later.
warn_of_other_project()
