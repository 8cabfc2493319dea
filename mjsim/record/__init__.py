"""Recordings: MCAP files of a run, written and read."""
