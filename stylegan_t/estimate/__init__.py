"""Know before you go: what a training would take, told without data, without weights and without running it."""
