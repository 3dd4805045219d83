"""Base + axis data -> expert adapters, task vectors, latent space, task and parameter matrices."""
