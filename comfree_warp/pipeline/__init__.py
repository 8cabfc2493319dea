"""The stages of a step, around the law."""
