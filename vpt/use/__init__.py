"""Trained models in use: new scans, archives, finished runs."""
