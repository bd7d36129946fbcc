"""The command line: parses arguments into configs, calls the public functions, prints results."""
