"""The pages of runs, evaluations and predictions: what lies in their folders, read and handed to `vpt.report`."""
