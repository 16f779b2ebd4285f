"""What papers claim, judged by the records."""
