"""The page for browsers, and the only module that knows the insides of viser and mjviser."""
