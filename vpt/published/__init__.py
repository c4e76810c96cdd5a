"""Data sets that others published: fetched or taken from disk, verified, and made into a folder that `vpt` reads."""
