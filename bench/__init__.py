"""The runner: joins tasks and pruning, stores every training, derives every table."""

import os

# Before torch is loaded. Threads that wait for each other spin for 3 ms by default, a time slice that they take from the one they
# wait for when another program is on the cores. What is computed is the same. A user's own setting is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
