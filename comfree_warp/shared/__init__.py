"""What both laws use: threads over contacts, rows and trees, and sums in a fixed order."""
