"""What tells one run from another."""
