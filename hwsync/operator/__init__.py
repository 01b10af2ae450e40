"""The operator's side: what is asked of boards, and what comes of it."""
