"""What people see of a run: how far it is, what it measured against earlier ones, and whether it is good enough."""
