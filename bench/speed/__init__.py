"""How long tickets take at inference: forms of one network, timed in turn on the same inputs."""
