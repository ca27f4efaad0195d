"""Features in words: explanations with their scores, a chat model, the atlas."""
