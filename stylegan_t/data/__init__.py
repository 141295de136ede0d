"""Image-caption pairs: drawing, reading, sharding, filtering, loading."""
