"""Measuring a trained model: fakes and reals seen by the judges, and by the oracle where there is one."""
