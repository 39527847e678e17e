"""Reports on a load outside the terminal: an HTML page, GitHub Actions, Prometheus."""
