"""The command line: arguments become a config, a config becomes a call."""
