"""What a human types about identities; each subcommand is loaded when it is used (`broker.command.COMMANDS`)."""
