"""The methods: generators of tickets, one module for each family."""

from pruning.methods.magnitude import dense, imp, imp_by_kind, imp_continued, one_shot

__all__ = ["dense", "imp", "imp_by_kind", "imp_continued", "one_shot"]
