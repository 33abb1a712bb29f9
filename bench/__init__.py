"""kdbench: a fair, paired, tracked benchmark of knowledge-distillation methods."""

import os

# Threads that wait for each other sleep instead of spinning. Alone this costs about a tenth; beside another busy
# process it keeps small networks from stalling (docs/decisions.md). Must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
