"""From cases to the slices of a training step: prepared once, cached, drawn."""
