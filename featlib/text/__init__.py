"""Raw text to token ids: sources, documents, stories, tokens, and labels that language decides."""
