"""What is kept on disk: stages, records."""
