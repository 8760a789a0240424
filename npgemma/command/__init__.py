"""The command line: its arguments, what each command does, how it prints."""
