"""Pictures from the web: a list of addresses in, samples and reasons out; see ``rows.fetch_rows``."""
