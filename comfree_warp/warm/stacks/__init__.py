"""Stacks of bodies that are solved together, under the warm law."""
