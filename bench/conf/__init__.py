"""The configuration keys that every task has."""
