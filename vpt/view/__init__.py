"""Scans and masks in a browser on this machine: what is shown, and the server that shows it and nothing else."""
