"""The meaning of the settings, one module per subject."""
