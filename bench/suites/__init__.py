"""Suites: lists of events that give one ranking of methods over several domains."""
