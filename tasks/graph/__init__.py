"""What graph tasks share: sparse kernels, networks with prunable edges, checks of the data, costs. No task itself."""
