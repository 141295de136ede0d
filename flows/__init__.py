"""When and where stages run: Prefect over DVC. Knows no tensors; stages are called as commands."""
