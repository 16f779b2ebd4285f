"""Callbacks: what a method adds to a training."""
