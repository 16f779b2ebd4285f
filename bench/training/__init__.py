"""How a network is trained: the loop, several processes, speed."""
