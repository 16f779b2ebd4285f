"""What a method adds to a training."""
