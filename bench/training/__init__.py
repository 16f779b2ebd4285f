"""The training of networks: the loop, several processes, kernels, speed."""
