"""The tasks of the suite, one folder for each, and what several of them share."""
