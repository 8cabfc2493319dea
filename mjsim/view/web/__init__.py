"""The page for browsers, drawn by mjviser and served by viser."""
