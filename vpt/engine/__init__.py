"""Training: `vpt.train`."""
