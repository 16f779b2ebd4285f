"""The lab stands between a method, which knows no task, and a task, which knows no method."""
