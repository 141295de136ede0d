"""Work in parts, on the processes of one machine or on a Ray cluster; what a part's result is depends on neither."""
