"""When and where stages run: Prefect over DVC. Knows no tensors; stages are called as commands."""

import os

os.environ.setdefault(
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120"
)  # a busy machine needs more than 20
