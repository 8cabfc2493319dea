"""A run without a window, and what every run prints and keeps."""
