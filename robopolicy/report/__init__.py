"""Self-contained HTML pages of a run, of several, or of a deployment; recordings for other viewers."""
