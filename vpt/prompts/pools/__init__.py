"""What methods share whose prompts are chosen for each image by the frozen encoder's own feature of it, the query."""
