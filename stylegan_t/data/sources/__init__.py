"""Where image-caption pairs come from: drawn here, files on this machine or elsewhere, or links to fetch."""
