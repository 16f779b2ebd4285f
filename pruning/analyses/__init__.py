"""Analyses: generators of rows, (lab, densities, **options) -> dicts. What they measure is no part of a ticket's result."""
