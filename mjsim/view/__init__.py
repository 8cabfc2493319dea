"""What a person looks at: windows, pages and lines of text, live or recorded."""
