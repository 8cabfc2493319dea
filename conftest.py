"""test_headless.py and test_viewer.py are programs: pytest must not import them."""

collect_ignore = ["test_headless.py", "test_viewer.py"]
