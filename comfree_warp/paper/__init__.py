"""The law of the papers: every row by itself, in closed form."""
