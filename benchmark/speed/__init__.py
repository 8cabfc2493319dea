"""The speed suite: scenes, measured groups, pytest-benchmark rows, and comparisons of runs."""
