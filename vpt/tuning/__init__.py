"""The controls: what of the backbone trains besides prompts and head, one file each with its section of the config."""
