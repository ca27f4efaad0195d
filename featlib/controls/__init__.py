"""What chapter 11 holds fixed: another seed, another text, a shared dictionary, nothing at all."""
