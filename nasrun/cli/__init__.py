"""The command line: from typed words to a task that runs, and to an exit status."""
