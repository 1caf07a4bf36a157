"""The command line: `rfkeras COMMAND`, one file a command."""
