"""The common part of graph tasks: sparse kernels, networks with prunable edges, checks of the data. It is no task
itself."""
