"""Photographs of one's own, classified by an exported student; needs neither torch nor lightning."""
