"""The lab: between a method and a task."""
