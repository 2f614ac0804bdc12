"""The tasks of the command line, a file each that reads from top to bottom."""
