"""Students in files that run elsewhere: a graph, in eight bits too, and a card of what they are worth."""
