"""What training does for groups of cases to be treated alike, one file for each way, with its section of the config."""
