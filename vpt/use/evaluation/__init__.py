"""Predicted masks and references: which belong together, what is scored of them, what is doubtful in them."""
