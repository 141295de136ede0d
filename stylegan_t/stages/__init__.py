"""One module per stage, each with one public ``run(config, workspace, device)``; the only code that knows paths."""
