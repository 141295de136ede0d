"""Training: the loop, the update steps, resume state. Takes networks and settings; knows no pipeline paths."""
