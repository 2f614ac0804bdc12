"""The command line: from the words that were typed to a task that runs, and to an exit status."""
