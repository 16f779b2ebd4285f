"""Graphs of the Open Graph Benchmark with graph networks."""
