"""Tables from the results that runs left on disk."""
