"""The commands: thin, each maps options to objects and errors to exit codes."""
