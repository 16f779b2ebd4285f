"""Checks of a task folder and of this machine."""
