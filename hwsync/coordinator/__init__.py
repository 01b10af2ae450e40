"""The coordinator: intake, decide, one transaction, publish, acknowledge."""
