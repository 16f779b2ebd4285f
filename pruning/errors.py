"""Errors a user can act on. The message is one line that says what to do."""


class PruningError(ValueError):
    """Input that no allocation, score or control can serve."""


class NotApplicable(PruningError):
    """The task lacks something the method declares to need."""
