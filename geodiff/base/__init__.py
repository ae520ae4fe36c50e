"""What everything else stands on: argument checks, errors, files, and the posterior in summary.

Imports nothing of geodiff; every other folder may import from here.
"""
