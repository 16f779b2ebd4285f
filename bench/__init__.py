"""The runner: joins tasks and pruning, stores every training, derives every table."""
