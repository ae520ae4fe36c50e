"""One method a file. Each walks a `Descent` down the noise levels; what sets it apart is how it uses the measurement.

Imports from `geodiff.inverse.descent` and `problem`.
"""
