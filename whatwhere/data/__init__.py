"""Images: where they come from, which labels are shown, and how they reach the trainer."""
