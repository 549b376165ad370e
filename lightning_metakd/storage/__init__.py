"""Files that are whole or not there, and are read as data alone."""
