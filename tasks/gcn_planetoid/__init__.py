"""Cora, CiteSeer and PubMed with graph networks."""
