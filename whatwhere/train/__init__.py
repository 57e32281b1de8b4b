"""The one engine: updates, stages, and the loop that runs them."""
