"""The subcommands of `rave`, one file each: `parser()` and `run(options)`."""
