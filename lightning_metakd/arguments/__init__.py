"""Arguments of constructors: checked, and recorded."""
