"""What pytest must not import: programs, and the speed suite, which has a pytest.ini of its own."""

collect_ignore = ["test_headless.py", "test_viewer.py", "benchmark"]
