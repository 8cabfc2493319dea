"""The report: stored results as one HTML page and a Markdown summary."""
