"""Sequential Monte Carlo: clouds of weighted particles that are exact in the limit of many."""
