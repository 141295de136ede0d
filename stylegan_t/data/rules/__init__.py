"""Which pairs are trained on, and on which side of the split each falls: functions of the score tables."""
