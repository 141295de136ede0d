"""Stages on many machines: a parent sends each to a worker of its pool; contents move through DVC's remote and git."""
