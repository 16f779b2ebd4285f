"""The runner: joins tasks and pruning, stores every training, derives every table."""

import os

# Before torch is loaded. Threads that wait for each other spin for 3 ms by default, a time slice that they take from the one they
# wait for when another program is on the cores. What is computed is the same. A user's own setting is kept.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="1000")
