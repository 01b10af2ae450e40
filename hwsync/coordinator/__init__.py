"""The coordinator: inbox, decide, one transaction, publish, acknowledge."""
