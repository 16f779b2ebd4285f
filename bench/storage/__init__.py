"""Stages and records on disk."""
