"""Whether this machine and this repository are fit to run: independent checks, each with its cure.

``python -m flows.doctor``, or ``stylegan-t doctor``, runs them all.
"""
