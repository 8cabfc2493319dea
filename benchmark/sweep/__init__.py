"""Sweeps: many cases on the cores of this machine or on a Ray cluster, into one table."""
