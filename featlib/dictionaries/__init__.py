"""From activations to features: sparse autoencoders, how they are trained and read."""
